//! The deployment's own account, and others read through a role of theirs.

use std::cell::RefCell;
use std::collections::BTreeSet;

use aws_config::SdkConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_credential_types::provider::SharedCredentialsProvider;

use super::call::Caller;
use super::inventory::{self, Listed, Owned};
use super::pages::Pages;
use super::security_groups::Groups;
use crate::cloud::{CloudError, Trouble};
use crate::config::AwsAccount;

/// One account that is read.
#[derive(Debug)]
pub(super) struct Account {
    /// Its id; empty for the deployment's own.
    pub(super) id: String,
    /// Whoever calls with its credentials.
    pub(super) caller: Caller,
    /// VPCs to look at; every one the credentials can see when empty.
    pub(super) vpcs: Vec<String>,
    /// The groups its interfaces are in.
    pub(super) groups: Groups,
    pages: Pages<Owned>,
    last: RefCell<Option<Listed>>,
}

impl Account {
    /// The deployment's own.
    pub(super) fn own(caller: Caller, vpcs: Vec<String>) -> Self {
        Self {
            id: String::new(),
            caller,
            vpcs,
            groups: Groups::default(),
            pages: Pages::default(),
            last: RefCell::default(),
        }
    }

    /// Another, through the role it has for us. Without VPCs of its own it shares the
    /// deployment's.
    pub(super) async fn other(
        sdk: &SdkConfig,
        own: &Caller,
        vpcs: &[String],
        account: &AwsAccount,
    ) -> Self {
        let role = if account.role.starts_with("arn:") {
            account.role.clone()
        } else {
            let partition = partition(own.region());
            format!(
                "arn:{partition}:iam::{}:role/{}",
                account.account, account.role
            )
        };
        let mut provider = AssumeRoleProvider::builder(role)
            .session_name("postern-cloudsync")
            .configure(sdk);
        if let Some(id) = &account.external_id {
            provider = provider.external_id(id);
        }
        let provider = SharedCredentialsProvider::new(provider.build().await);
        let vpcs = if account.vpcs.is_empty() {
            vpcs.to_vec()
        } else {
            account.vpcs.clone()
        };
        Self {
            id: account.account.clone(),
            ..Self::own(own.with_credentials(provider), vpcs)
        }
    }

    /// Its interfaces. Another account that cannot be read now has
    /// the interfaces it had, and is a trouble to be reported. Our own is an error, and so is one
    /// that was not read since the start: without it the policy would be a smaller one.
    pub(super) async fn interfaces(
        &self,
        troubles: &mut Vec<Trouble>,
    ) -> Result<Listed, CloudError> {
        let last = self.last.borrow().clone();
        let read = inventory::interfaces(&self.caller, &self.pages, &self.vpcs, last.as_ref());
        match read.await {
            Ok(listed) => {
                *self.last.borrow_mut() = Some(listed.clone());
                Ok(listed)
            }
            Err(mut error) => match last {
                Some(last) if !self.id.is_empty() => {
                    troubles.push(self.trouble(&error));
                    Ok(last)
                }
                Some(_) => Err(error),
                None => {
                    if !self.id.is_empty() {
                        error.call = format!("{} in account {}", error.call, self.id);
                    }
                    Err(error)
                }
            },
        }
    }

    /// What it means that this account cannot be read.
    pub(super) fn trouble(&self, error: &CloudError) -> Trouble {
        let Self { id, .. } = self;
        Trouble {
            object: format!("account {id}"),
            detail: format!(
                "cannot be read ({}: {}); what was read of it last stays",
                error.call, error.kind
            ),
        }
    }

    /// Which of these groups are owned by this account, as far as interfaces tell.
    pub(super) fn may_own(&self, gid: &str, interfaces: &[Owned]) -> bool {
        let users = interfaces
            .iter()
            .filter(|found| found.interface.groups.iter().any(|group| group == gid));
        let mut owners = users.map(|found| &found.owner);
        self.id.is_empty() || owners.any(|owner| *owner == self.id)
    }
}

/// What a group is that no role can read.
pub(super) fn unreadable(gid: &str, interfaces: &[Owned], known: &[Account]) -> Trouble {
    let users: Vec<&Owned> = interfaces
        .iter()
        .filter(|found| found.interface.groups.iter().any(|group| group == gid))
        .collect();
    let owners: BTreeSet<&str> = users.iter().map(|found| found.owner.as_str()).collect();
    let named = |count: usize| {
        let ids = users.iter().map(|found| found.interface.id.as_str());
        let mut text = ids.take(count).collect::<Vec<_>>().join(", ");
        if users.len() > count {
            text.push_str(&format!(" and {} more", users.len().saturating_sub(count)));
        }
        text
    };
    let owner = owners.iter().copied().collect::<Vec<_>>().join(", ");
    let has_role = known
        .iter()
        .any(|account| !account.id.is_empty() && owners.contains(account.id.as_str()));
    let fix = if has_role {
        "let that account's role call ec2:DescribeSecurityGroups and ec2:DescribeSecurityGroupRules"
            .to_owned()
    } else {
        format!(
            "add [[aws.accounts]] with account = \"{owner}\" and a role there that may call \
             ec2:DescribeNetworkInterfaces, ec2:DescribeSecurityGroups and ec2:DescribeSecurityGroupRules"
        )
    };
    Trouble {
        object: gid.to_owned(),
        detail: format!(
            "the group is used by {} of account {owner} and no role here can read it; {fix}",
            named(3)
        ),
    }
}

/// The partition of a region, as ARNs write it.
pub(super) fn partition(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ if region.starts_with("us-isob-") => "aws-iso-b",
        _ if region.starts_with("us-iso-") => "aws-iso",
        _ if region.starts_with("eusc-") => "aws-eusc",
        _ => "aws",
    }
}
