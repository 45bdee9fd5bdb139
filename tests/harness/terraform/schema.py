"""Reads provider schemas out of published typings.

usage: schema.py WHEEL PREFIX TYPES > SCHEMA

WHEEL is the typings' wheel of one provider (PyPI), PREFIX what its folders leave out of names (`aws`, or - for none), TYPES a comma-separated list of what to
read: `aws_eip` for a resource, `data.aws_ami` for a data source. The typings are generated from the provider's own schema
and name, for every attribute and block, type, nesting, and whether it is required or only computed. What they do not say is
which optional attributes the provider fills in when they are left out: those in COMPUTED are taken to be.
"""

import io
import json
import re
import sys
import tarfile
import zipfile

COMPUTED = {
    "id", "arn", "ipv6_cidr_block", "name", "name_prefix", "ipv6_addresses", "self_link", "address", "ip_address", "project", "region", "zone",
    "latest_version", "tags_all", "availability_zone", "vpc_id", "owner_id", "project_id", "most_recent", "fingerprint", "network",
}
SIMPLE = {
    "string": "string", "number": "number", "boolean": "bool", "stringList": ["list", "string"],
    "numberList": ["list", "number"], "stringMap": ["map", "string"], "numberMap": ["map", "number"],
    "booleanMap": ["map", "bool"], "anyMap": ["map", "dynamic"], "any": "dynamic",
}
ENTRY = re.compile(
    r'(\w+): \{\s+value: ([^\n]*),\s+isBlock: (true|false),\s+type: "(\w+)",\s+storageClassType: "(\w+)"'
)
READ_ONLY = re.compile(r"// (\w+) - computed: true, optional: false, required: false\s+(?:get (\w+)\(\) \{\s+return this\.get(\w+)Attribute)?")


def interfaces(text):
    """Interface name to its members, each with whether it may be left out."""
    found = {}
    for name, body in re.findall(r"export interface (\w+)[^{]*\{(.*?)\n\}", text, re.S):
        found[name] = {member: optional == "?" for member, optional in re.findall(r"readonly (\w+)(\??):", body)}
    return found


def split_classes(code):
    """Class name to its body, and function name to its body."""
    classes = dict(re.findall(r"\nclass (\w+) [^\n]*\{\n(.*?)\n\}", code, re.S))
    functions = dict(re.findall(r"\nfunction (\w+)\([^\n]*\{\n(.*?)\n\}", code, re.S))
    return classes, functions


class Reader:
    def __init__(self, code, types):
        self.classes, self.functions = split_classes(code)
        self.members = interfaces(types)

    def block(self, body, members, owner):
        attributes, blocks = [], []
        for name, value, is_block, kind, storage in ENTRY.findall(body):
            camel = re.findall(r"(?:this\._|struct\.|struct!\.)(\w+)", value)
            optional = members.get(camel[-1] if camel else "", True)
            nested = re.search(r"(\w+)ToHclTerraform\b", value)
            if is_block == "true" and nested and nested.group(1) + "ToHclTerraform" in self.functions:
                struct = nested.group(1)[0].upper() + nested.group(1)[1:]
                inner = self.block(
                    self.functions[nested.group(1) + "ToHclTerraform"],
                    self.members.get(struct, {}),
                    self.classes.get(struct + "OutputReference", ""),
                )
                blocks.append({
                    "name": name, "block": inner, "nesting": {"struct": "single"}.get(kind, kind),
                    "min": 0 if optional else 1, "max": 0 if "listMapper" in value or kind == "struct" else 1,
                })
                continue
            kind_of = SIMPLE.get(storage, "dynamic")
            if kind == "set" and isinstance(kind_of, list):
                kind_of = ["set", kind_of[1]]
            attributes.append({
                "name": name, "type": kind_of, "required": not optional, "optional": optional,
                "computed": optional and name in COMPUTED,
            })
        known = {entry["name"] for entry in attributes + blocks}
        for name, _, getter in READ_ONLY.findall(owner):
            if name not in known:
                kind_of = {"String": "string", "Number": "number", "Boolean": "bool", "List": ["list", "string"]}
                attributes.append({"name": name, "type": kind_of.get(getter, "dynamic"), "computed": True})
        return {"attributes": attributes, "blocks": blocks}


def read(files, folder, title):
    code, types = ("\n".join(text for (where, name), text in files.items() if where == folder and name.endswith(end)) for end in (".js", ".d.ts"))
    if not code:
        sys.exit(f"schema.py: the typings have no {title}")
    reader = Reader(code, types)
    main = next(body for body in reader.classes.values() if "synthesizeHclAttributes" in body)
    config = next(
        members for name, members in reader.members.items()
        if name.endswith("ProviderConfig") or re.search(rf"export interface {name} extends cdktf.Terraform\w*MetaArguments", types)
    )
    return reader.block(main[main.rindex("synthesizeHclAttributes"):], config, main)


def folder_of(kind, prefix):
    bare = kind.removeprefix("data.").removeprefix(prefix + "_").replace("_", "-")
    return "-".join(filter(None, ["data" * kind.startswith("data."), prefix.strip("-") * kind.startswith("data."), bare]))


def main():
    wheel, prefix, types = sys.argv[1:]
    kinds = [kind for kind in types.split(",") if kind]
    folders = {"provider", *(folder_of(kind, prefix) for kind in kinds)}
    files = {}
    with zipfile.ZipFile(wheel) as outer:
        inner = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner)), mode="r|gz") as archive:
            for member in archive:
                parts = member.name.split("/")
                if len(parts) == 4 and parts[2] in folders:
                    files[parts[2], parts[3]] = archive.extractfile(member).read().decode()
    schema = {"provider": read(files, "provider", prefix), "resources": {}, "data": {}}
    for kind in kinds:
        group = schema["data"] if kind.startswith("data.") else schema["resources"]
        group[kind.removeprefix("data.")] = read(files, folder_of(kind, prefix), kind)
    json.dump(schema, sys.stdout, indent=1)


main()
