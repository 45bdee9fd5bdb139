//! Autoscaling groups as far as their instances' health and their tags go.

use std::collections::BTreeMap;

use super::double::scaling_error;
use super::http::Message;

/// Groups, their instances and their tags.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<String, Group>,
    unhealthy: Vec<String>,
}

#[derive(Debug, Default)]
struct Group {
    instances: Vec<String>,
    tags: BTreeMap<String, String>,
}

impl Groups {
    /// One more group.
    pub(super) fn add(&mut self, name: &str, instances: &[&str]) {
        let group = self.groups.entry(name.to_owned()).or_default();
        let new = instances.iter().map(|instance| (*instance).to_owned());
        group.instances.extend(new);
    }

    /// Who was said to be unhealthy.
    pub(super) fn unhealthy(&self) -> &[String] {
        &self.unhealthy
    }

    /// The answer to an action that is known here.
    pub(super) fn answer(
        &mut self,
        action: &str,
        arguments: &[(String, String)],
    ) -> Option<Message> {
        match action {
            "SetInstanceHealth" => Some(self.set_health(arguments)),
            "CreateOrUpdateTags" => Some(self.tag(arguments)),
            "DescribeTags" => Some(self.tags(arguments)),
            _ => None,
        }
    }

    fn set_health(&mut self, arguments: &[(String, String)]) -> Message {
        let instance = argument(arguments, "InstanceId");
        let is_known = |group: &Group| group.instances.iter().any(|known| known == instance);
        if !self.groups.values().any(is_known) {
            return scaling_error(&format!("Instance Id not found - {instance}"));
        }
        match argument(arguments, "HealthStatus") {
            "Unhealthy" => self.unhealthy.push(instance.to_owned()),
            "Healthy" => {}
            other => return scaling_error(&format!("Health status {other} is not valid")),
        }
        good("SetInstanceHealth", "")
    }

    fn tag(&mut self, arguments: &[(String, String)]) -> Message {
        let member = |name: &str| argument(arguments, &format!("Tags.member.1.{name}"));
        if member("ResourceType") != "auto-scaling-group" {
            return scaling_error("Tag resource type must be auto-scaling-group");
        }
        let (key, value) = (member("Key"), member("Value"));
        if key.is_empty() || key.len() > 128 || value.len() > 256 || key.starts_with("aws:") {
            return scaling_error("Tag key or value is invalid");
        }
        if !["true", "false"].contains(&member("PropagateAtLaunch")) {
            return scaling_error("PropagateAtLaunch must be said");
        }
        let Some(group) = self.groups.get_mut(member("ResourceId")) else {
            return scaling_error("Auto Scaling group name not found - null");
        };
        group.tags.insert(key.to_owned(), value.to_owned());
        good("CreateOrUpdateTags", "")
    }

    fn tags(&self, arguments: &[(String, String)]) -> Message {
        if argument(arguments, "Filters.member.1.Name") != "key" {
            return scaling_error("Filter type is not correct");
        }
        let wanted = argument(arguments, "Filters.member.1.Values.member.1");
        let mut members = String::new();
        for (name, group) in &self.groups {
            if let Some(value) = group.tags.get(wanted) {
                members += &format!(
                    "<member><ResourceId>{name}</ResourceId><ResourceType>auto-scaling-group</ResourceType>\
                     <Key>{wanted}</Key><Value>{value}</Value><PropagateAtLaunch>false</PropagateAtLaunch></member>"
                );
            }
        }
        good(
            "DescribeTags",
            &format!("<DescribeTagsResult><Tags>{members}</Tags></DescribeTagsResult>"),
        )
    }
}

fn argument<'a>(arguments: &'a [(String, String)], name: &str) -> &'a str {
    let found = arguments.iter().find(|(key, _)| key == name);
    found.map_or("", |(_, value)| value)
}

fn good(action: &str, result: &str) -> Message {
    let body = format!(
        "<{action}Response xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">{result}</{action}Response>"
    );
    Message::answer(200, "text/xml", body)
}
