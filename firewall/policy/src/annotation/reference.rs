//! References to external lists.

use std::fmt;

/// Which external list a description refers to: what stands behind the `@`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListReference {
    /// `@name`: the provider's usual store, in the deployment's own account and region.
    Named(String),
    /// `@secret:name`: a Secrets Manager secret, in the deployment's own account and region.
    Secret(String),
    /// `@arn:…`, as written.
    Arn(String),
    /// `@projects/P/secrets/S`, as written, with or without `/versions/V`.
    Project(String),
}

/// Why text is no reference to a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidListReference {
    /// Nothing behind the `@`, or behind `secret:`.
    #[error("the list has no name")]
    Empty,
    /// A character outside `A-Za-z0-9_./-` (and `:` in an ARN).
    #[error("the list's name contains the character {0:?}")]
    Character(char),
    /// A `..` between slashes, which would leave the place where lists are kept.
    #[error("the list's name contains \"..\"")]
    Parent,
    /// `arn:` without six parts.
    #[error("the ARN is not complete")]
    Arn,
    /// `projects/` in another form than `projects/P/secrets/S`.
    #[error("expected projects/PROJECT/secrets/SECRET")]
    Project,
}

impl ListReference {
    /// Reads what stands behind the `@`.
    ///
    /// # Errors
    ///
    /// When it has none of the four forms.
    pub fn parse(text: &str) -> Result<Self, InvalidListReference> {
        if let Some(name) = text.strip_prefix("secret:") {
            return checked_name(name).map(Self::Secret);
        }
        if text.starts_with("arn:") {
            if let Some(wrong) = text.chars().find(|c| !is_name_char(*c) && *c != ':') {
                return Err(InvalidListReference::Character(wrong));
            }
            // arn:partition:service:region:account:resource
            let resource = text.splitn(6, ':').nth(5).unwrap_or_default();
            let reference = Self::Arn(text.to_owned());
            return if resource.is_empty() {
                Err(InvalidListReference::Arn)
            } else {
                Ok(reference)
            };
        }
        let name = checked_name(text)?;
        if !name.starts_with("projects/") {
            return Ok(Self::Named(name));
        }
        let parts: Vec<&str> = name.split('/').collect();
        let shape = match parts.as_slice() {
            [_, project, "secrets", secret] => [*project, *secret].iter().all(|p| !p.is_empty()),
            [_, project, "secrets", secret, "versions", version] => [*project, *secret, *version]
                .iter()
                .all(|part| !part.is_empty()),
            _ => false,
        };
        if shape {
            Ok(Self::Project(name))
        } else {
            Err(InvalidListReference::Project)
        }
    }
}

/// Checks the characters of a name.
fn checked_name(name: &str) -> Result<String, InvalidListReference> {
    if name.is_empty() {
        return Err(InvalidListReference::Empty);
    }
    if let Some(wrong) = name.chars().find(|c| !is_name_char(*c)) {
        return Err(InvalidListReference::Character(wrong));
    }
    if name.split('/').any(|part| part == "..") {
        return Err(InvalidListReference::Parent);
    }
    Ok(name.to_owned())
}

/// Whether a character may stand in the name of a list.
fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}

impl fmt::Display for ListReference {
    /// As written behind the `@`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(text) | Self::Arn(text) | Self::Project(text) => f.write_str(text),
            Self::Secret(name) => write!(f, "secret:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_forms_print_as_they_are_written() {
        for (text, expected) in [
            (
                "postern-team1",
                ListReference::Named("postern-team1".to_owned()),
            ),
            ("/team/list", ListReference::Named("/team/list".to_owned())),
            (
                "secret:DiscrimiNAT-x",
                ListReference::Secret("DiscrimiNAT-x".to_owned()),
            ),
            (
                "arn:aws:ssm:eu-west-1:123456789012:parameter/team1-list",
                ListReference::Arn(
                    "arn:aws:ssm:eu-west-1:123456789012:parameter/team1-list".to_owned(),
                ),
            ),
            (
                "arn:aws:secretsmanager:eu-west-1:123456789012:secret:service-a-AbCdEf",
                ListReference::Arn(
                    "arn:aws:secretsmanager:eu-west-1:123456789012:secret:service-a-AbCdEf"
                        .to_owned(),
                ),
            ),
            (
                "projects/p-1/secrets/s",
                ListReference::Project("projects/p-1/secrets/s".to_owned()),
            ),
        ] {
            let reference = ListReference::parse(text).unwrap();
            assert_eq!(reference, expected);
            assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn other_forms_are_refused() {
        use InvalidListReference as Fault;
        for (text, fault) in [
            ("", Fault::Empty),
            ("secret:", Fault::Empty),
            ("team list", Fault::Character(' ')),
            ("team@list", Fault::Character('@')),
            ("../../etc/passwd", Fault::Parent),
            ("a/../b", Fault::Parent),
            ("arn:aws:ssm", Fault::Arn),
            ("arn:aws:ssm:eu-west-1:123456789012:", Fault::Arn),
            ("arn:aws:ssm:eu-west-1:1:parameter/ä", Fault::Character('ä')),
            ("projects/p", Fault::Project),
            ("projects//secrets/s", Fault::Project),
            ("projects/p/secrets/s/versions", Fault::Project),
        ] {
            assert_eq!(ListReference::parse(text), Err(fault), "{text:?}");
        }
    }
}
