"""A Terraform provider that knows a schema and nothing else: what `validate` and mocked tests ask of one.

usage: stub_provider.py SCHEMA, where SCHEMA is what schema.py wrote
"""

import json
import sys

import tf.provider
import tf.runner
from tf.gen import tfplugin_pb2 as pb
from tf.gen import tfplugin_pb2_grpc as rpc

NESTING = pb.Schema.NestedBlock.NestingMode


def block(description):
    return pb.Schema.Block(
        attributes=[
            pb.Schema.Attribute(
                name=entry["name"], type=json.dumps(entry["type"]).encode(), required=entry.get("required", False),
                optional=entry.get("optional", False), computed=entry.get("computed", False),
            )
            for entry in description["attributes"]
        ],
        block_types=[
            pb.Schema.NestedBlock(
                type_name=entry["name"], block=block(entry["block"]), nesting=NESTING.Value(entry["nesting"].upper()),
                min_items=entry["min"], max_items=entry["max"],
            )
            for entry in description["blocks"]
        ],
    )


def schema(description):
    return pb.Schema(version=0, block=block(description))


class Stub(rpc.ProviderServicer):
    def __init__(self, _provider):
        with open(sys.argv[1], encoding="utf-8") as file:
            self.schema = json.load(file)

    def GetProviderSchema(self, request, context):
        return pb.GetProviderSchema.Response(
            provider=schema(self.schema["provider"]),
            resource_schemas={name: schema(entry) for name, entry in self.schema["resources"].items()},
            data_source_schemas={name: schema(entry) for name, entry in self.schema["data"].items()},
        )

    def ValidateProviderConfig(self, request, context):
        return pb.ValidateProviderConfig.Response()

    def ValidateResourceConfig(self, request, context):
        return pb.ValidateResourceConfig.Response()

    def ValidateDataResourceConfig(self, request, context):
        return pb.ValidateDataResourceConfig.Response()

    def ConfigureProvider(self, request, context):
        return pb.ConfigureProvider.Response()

    def StopProvider(self, request, context):
        return pb.StopProvider.Response()


tf.provider.ProviderServicer = Stub
tf.runner.run_provider(None, sys.argv[:1])
