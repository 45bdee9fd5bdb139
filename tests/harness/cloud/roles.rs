//! Roles of other accounts: whom they trust, and what they may do. moto gives credentials to everybody.

use std::collections::{BTreeSet, HashMap};

use super::double::denied;
use super::http::Message;
use super::pages::text_of;

#[derive(Debug, Default)]
pub(super) struct Roles {
    external_id: Option<String>,
    /// Accounts by the keys that their roles gave out.
    keys: HashMap<String, String>,
    closed: BTreeSet<String>,
}

impl Roles {
    /// Every role trusts only who knows this id.
    pub(super) fn trust(&mut self, external_id: &str) {
        self.external_id = Some(external_id.to_owned());
    }

    /// The account's roles may do nothing from now on, with the credentials they have, too.
    pub(super) fn close(&mut self, account: &str) {
        self.closed.insert(account.to_owned());
    }

    /// What somebody is told who asks for credentials without knowing the id.
    pub(super) fn distrust(&self, arguments: &[(String, String)]) -> Option<Message> {
        let is_known = self.external_id.is_none()
            || self.external_id.as_deref() == argument(arguments, "ExternalId");
        (!is_known).then(|| denied(false, "sts:AssumeRole"))
    }

    /// Remembers whose the credentials in this answer are.
    pub(super) fn note(&mut self, arguments: &[(String, String)], answer: &Message) {
        let text = answer.text();
        let account = argument(arguments, "RoleArn").and_then(|arn| arn.split(':').nth(4));
        if let (Some(key), Some(account)) = (text_of(&text, "AccessKeyId"), account) {
            self.keys.insert(key.to_owned(), account.to_owned());
        }
    }

    /// What a role is told that may do nothing.
    pub(super) fn refusal(&self, service: &str, request: &Message) -> Option<Message> {
        let (_, scope) = request
            .headers
            .get("authorization")?
            .split_once("Credential=")?;
        let account = self.keys.get(scope.split('/').next()?)?;
        let is_closed = self.closed.contains(account);
        is_closed.then(|| denied(false, &format!("{service}:everything")))
    }
}

fn argument<'a>(arguments: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = arguments.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}
