//! As much of the AWS API as the tests need to set the scene and to read back what arrived.

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::http::{Message, exchange, form_body};
use super::pages::text_of;

/// The region everything is in.
pub(super) const REGION: &str = "eu-west-1";

/// A caller of moto, or of the double.
#[derive(Debug, Clone, Copy)]
pub struct Api {
    address: SocketAddr,
    /// Of a role in another account; without one, moto's own account.
    access_key: Option<[u8; 20]>,
}

/// What the service said no to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Its code.
    pub code: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)
    }
}

impl std::error::Error for ApiError {}

/// An egress rule to be made.
#[derive(Debug, Clone, Copy)]
pub struct Rule<'a> {
    /// `tcp`, `udp`, `icmp` or `-1`.
    pub protocol: &'a str,
    /// First and last port.
    pub ports: (i32, i32),
    /// The destination.
    pub cidr: &'a str,
    /// The annotation.
    pub description: &'a str,
}

impl<'a> Rule<'a> {
    /// TCP to port 443 of everybody.
    pub fn https(description: &'a str) -> Self {
        Self {
            protocol: "tcp",
            ports: (443, 443),
            cidr: "0.0.0.0/0",
            description,
        }
    }
}

/// One log event read back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The line.
    pub message: String,
}

impl Api {
    /// A caller of whoever listens there.
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            access_key: None,
        }
    }

    /// The same in another account.
    pub fn in_account(&self, account: &str) -> Result<Self> {
        let role = format!("arn:aws:iam::{account}:role/scene");
        let pairs = [
            ("Action", "AssumeRole"),
            ("Version", "2011-06-15"),
            ("RoleArn", role.as_str()),
            ("RoleSessionName", "scene"),
        ];
        let kind = "application/x-www-form-urlencoded";
        let answer = self.call("sts", kind, None, form_body(&pairs))?.text();
        let key = text_of(&answer, "AccessKeyId").with_context(|| answer.clone())?;
        let key = <[u8; 20]>::try_from(key.as_bytes()).context("a key of 20 letters")?;
        Ok(Self {
            access_key: Some(key),
            ..*self
        })
    }

    /// A new VPC.
    pub fn vpc(&self, cidr: &str) -> Result<String> {
        self.ec2_id("CreateVpc", &[("CidrBlock", cidr)], "vpcId")
    }

    /// A new subnet.
    pub fn subnet(&self, vpc: &str, cidr: &str) -> Result<String> {
        self.ec2_id(
            "CreateSubnet",
            &[("VpcId", vpc), ("CidrBlock", cidr)],
            "subnetId",
        )
    }

    /// A new security group without the rule that lets everything out.
    pub fn group(&self, vpc: &str, name: &str) -> Result<String> {
        let arguments = [
            ("VpcId", vpc),
            ("GroupName", name),
            ("GroupDescription", name),
        ];
        let gid = self.ec2_id("CreateSecurityGroup", &arguments, "groupId")?;
        let everything = [
            ("GroupId", gid.as_str()),
            ("IpPermissions.1.IpProtocol", "-1"),
            ("IpPermissions.1.IpRanges.1.CidrIp", "0.0.0.0/0"),
        ];
        self.ec2("RevokeSecurityGroupEgress", &everything)?;
        Ok(gid)
    }

    /// A new egress rule; its id.
    pub fn allow(&self, gid: &str, rule: Rule<'_>) -> Result<String> {
        self.authorize("AuthorizeSecurityGroupEgress", gid, rule)
    }

    /// A new ingress rule; its id.
    pub fn allow_in(&self, gid: &str, rule: Rule<'_>) -> Result<String> {
        self.authorize("AuthorizeSecurityGroupIngress", gid, rule)
    }

    fn authorize(&self, action: &str, gid: &str, rule: Rule<'_>) -> Result<String> {
        let (from, to) = (rule.ports.0.to_string(), rule.ports.1.to_string());
        let arguments = [
            ("GroupId", gid),
            ("IpPermissions.1.IpProtocol", rule.protocol),
            ("IpPermissions.1.FromPort", &from),
            ("IpPermissions.1.ToPort", &to),
            ("IpPermissions.1.IpRanges.1.CidrIp", rule.cidr),
            ("IpPermissions.1.IpRanges.1.Description", rule.description),
        ];
        self.ec2_id(action, &arguments, "securityGroupRuleId")
    }

    /// Puts another description on a rule.
    pub fn describe(&self, gid: &str, rule: &str, to: Rule<'_>) -> Result<()> {
        let (first, last) = (to.ports.0.to_string(), to.ports.1.to_string());
        let at = "SecurityGroupRule.1.SecurityGroupRule";
        let keys = [
            format!("{at}.IpProtocol"),
            format!("{at}.FromPort"),
            format!("{at}.ToPort"),
            format!("{at}.CidrIpv4"),
            format!("{at}.Description"),
        ];
        let values = [to.protocol, &first, &last, to.cidr, to.description];
        let mut arguments = vec![
            ("GroupId", gid),
            ("SecurityGroupRule.1.SecurityGroupRuleId", rule),
        ];
        arguments.extend(keys.iter().map(String::as_str).zip(values));
        self.ec2("ModifySecurityGroupRules", &arguments).map(drop)
    }

    /// Deletes a group.
    pub fn delete_group(&self, gid: &str) -> Result<()> {
        self.ec2("DeleteSecurityGroup", &[("GroupId", gid)])
            .map(drop)
    }

    /// A new interface with this address in these groups.
    pub fn interface(&self, subnet: &str, address: &str, groups: &[&str]) -> Result<String> {
        let keys: Vec<String> = (1..=groups.len())
            .map(|index| format!("SecurityGroupId.{index}"))
            .collect();
        let mut arguments = vec![("SubnetId", subnet), ("PrivateIpAddress", address)];
        arguments.extend(keys.iter().map(String::as_str).zip(groups.iter().copied()));
        self.ec2_id("CreateNetworkInterface", &arguments, "networkInterfaceId")
    }

    /// Deletes an interface; its addresses are free from then on.
    pub fn release(&self, interface: &str) -> Result<()> {
        let arguments = [("NetworkInterfaceId", interface)];
        self.ec2("DeleteNetworkInterface", &arguments).map(drop)
    }

    /// Puts an interface in other groups.
    pub fn regroup(&self, interface: &str, groups: &[&str]) -> Result<()> {
        let keys: Vec<String> = (1..=groups.len())
            .map(|index| format!("SecurityGroupId.{index}"))
            .collect();
        let mut arguments = vec![("NetworkInterfaceId", interface)];
        arguments.extend(keys.iter().map(String::as_str).zip(groups.iter().copied()));
        self.ec2("ModifyNetworkInterfaceAttribute", &arguments)
            .map(drop)
    }

    /// Gives an interface a secondary address.
    pub fn assign(&self, interface: &str, address: &str) -> Result<()> {
        let arguments = [
            ("NetworkInterfaceId", interface),
            ("PrivateIpAddress.1", address),
        ];
        self.ec2("AssignPrivateIpAddresses", &arguments).map(drop)
    }

    /// A new instance with this address in this group; its id.
    pub fn instance(&self, subnet: &str, address: &str, gid: &str) -> Result<String> {
        let arguments = [
            ("ImageId", "ami-12c6146b"),
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("SubnetId", subnet),
            ("PrivateIpAddress", address),
            ("SecurityGroupId.1", gid),
        ];
        self.ec2_id("RunInstances", &arguments, "instanceId")
    }

    /// Everything in a log stream, oldest first; nothing when there is no such stream.
    pub fn log_events(&self, group: &str, stream: &str) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let mut request =
                json!({"logGroupName": group, "logStreamName": stream, "startFromHead": true});
            if let Some(token) = &token {
                request["nextToken"] = token.as_str().into();
            }
            let answer = match self.logs("GetLogEvents", &request) {
                Err(error)
                    if error
                        .downcast_ref::<ApiError>()
                        .is_some_and(|error| error.code == "ResourceNotFoundException") =>
                {
                    return Ok(events);
                }
                answer => answer?,
            };
            let page = answer["events"].as_array().cloned().unwrap_or_default();
            events.extend(page.iter().map(|event| Event {
                timestamp: event["timestamp"].as_i64().unwrap_or_default(),
                message: event["message"].as_str().unwrap_or_default().to_owned(),
            }));
            let next = answer["nextForwardToken"].as_str().map(ToOwned::to_owned);
            if page.is_empty() || next == token {
                return Ok(events);
            }
            token = next;
        }
    }

    fn ec2_id(&self, action: &str, arguments: &[(&str, &str)], element: &str) -> Result<String> {
        let answer = self.ec2(action, arguments)?;
        let id = text_of(&answer, element).with_context(|| format!("no {element} in {answer}"))?;
        Ok(id.to_owned())
    }

    /// Any EC2 action; the XML of the answer.
    pub fn ec2(&self, action: &str, arguments: &[(&str, &str)]) -> Result<String> {
        let mut pairs = vec![("Action", action), ("Version", "2016-11-15")];
        pairs.extend(arguments);
        let answer = self.call(
            "ec2",
            "application/x-www-form-urlencoded",
            None,
            form_body(&pairs),
        )?;
        let text = answer.text();
        if answer.status() != 200 {
            let code = text_of(&text, "Code").with_context(|| format!("{action}: {text}"))?;
            return Err(ApiError {
                code: code.to_owned(),
            })
            .context(text);
        }
        Ok(text)
    }

    /// Puts an SSM parameter, replacing it.
    pub fn parameter(&self, name: &str, value: &str) -> Result<()> {
        let request = json!({"Name": name, "Value": value, "Type": "String", "Overwrite": true});
        self.json("ssm", "AmazonSSM.PutParameter", &request)
            .map(drop)
    }

    /// Deletes an SSM parameter.
    pub fn delete_parameter(&self, name: &str) -> Result<()> {
        self.json("ssm", "AmazonSSM.DeleteParameter", &json!({"Name": name}))
            .map(drop)
    }

    /// Makes a secret.
    pub fn secret(&self, name: &str, text: &str) -> Result<()> {
        let request = json!({"Name": name, "SecretString": text});
        self.json("secretsmanager", "secretsmanager.CreateSecret", &request)
            .map(drop)
    }

    /// A new Elastic IP with this tag; its allocation.
    pub fn elastic_ip(&self, tag: &str) -> Result<String> {
        let allocation = self.ec2_id("AllocateAddress", &[("Domain", "vpc")], "allocationId")?;
        let tagged = [
            ("ResourceId.1", allocation.as_str()),
            ("Tag.1.Key", tag),
            ("Tag.1.Value", "egress"),
        ];
        self.ec2("CreateTags", &tagged)?;
        Ok(allocation)
    }

    /// The interface that an Elastic IP is on; none when it is free.
    pub fn interface_of(&self, allocation: &str) -> Result<Option<String>> {
        let answer = self.ec2("DescribeAddresses", &[("AllocationId.1", allocation)])?;
        let interface = text_of(&answer, "networkInterfaceId").unwrap_or_default();
        Ok(Some(interface.to_owned()).filter(|interface| !interface.is_empty()))
    }

    /// A new log group.
    pub fn log_group(&self, name: &str) -> Result<()> {
        self.logs("CreateLogGroup", &json!({"logGroupName": name}))
            .map(drop)
    }

    /// Days that a log group keeps its lines.
    pub fn retention(&self, group: &str) -> Result<Option<u64>> {
        let answer = self.logs("DescribeLogGroups", &json!({"logGroupNamePrefix": group}))?;
        Ok(answer["logGroups"][0]["retentionInDays"].as_u64())
    }

    fn logs(&self, action: &str, request: &Value) -> Result<Value> {
        self.json("logs", &format!("Logs_20140328.{action}"), request)
    }

    fn json(&self, service: &str, target: &str, request: &Value) -> Result<Value> {
        let action = target;
        let body = request.to_string().into_bytes();
        let answer = self.call(service, "application/x-amz-json-1.1", Some(target), body)?;
        // Some actions have nothing to say when they are done.
        if answer.status() == 200 && answer.body.is_empty() {
            return Ok(Value::Null);
        }
        let value: Value = serde_json::from_slice(&answer.body).with_context(|| answer.text())?;
        if answer.status() != 200 {
            let code = value["__type"].as_str().unwrap_or_default();
            let code = code.rsplit('#').next().unwrap_or_default().to_owned();
            if code.is_empty() {
                bail!("{action}: {value}");
            }
            return Err(ApiError { code }.into());
        }
        Ok(value)
    }

    fn call(
        &self,
        service: &str,
        kind: &str,
        target: Option<&str>,
        body: Vec<u8>,
    ) -> Result<Message> {
        // moto looks at the scope of the signature and not at the signature.
        let key = self
            .access_key
            .map(|key| String::from_utf8_lossy(&key).into_owned());
        let key = key.as_deref().unwrap_or("test");
        let scope = format!("{key}/20260101/{REGION}/{service}/aws4_request");
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0");
        let mut request = Message {
            line: "POST / HTTP/1.1".to_owned(),
            body,
            ..Message::default()
        };
        let mut header =
            |name: &str, value: &str| request.headers.insert(name.to_owned(), value.to_owned());
        header("host", &format!("{service}.{REGION}.amazonaws.com"));
        header("content-type", kind);
        header("authorization", &authorization);
        if let Some(target) = target {
            header("x-amz-target", target);
        }
        exchange(self.address, &request)
    }
}
