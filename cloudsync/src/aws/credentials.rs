//! Credentials that are kept while they last.
//!
//! A provider that fails (the metadata server, STS) must not stop calls that the credentials at hand would still sign, so these are
//! replaced some minutes before their end and used until it.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{
    ProvideCredentials, SharedCredentialsProvider, future::ProvideCredentials as Provided,
};
use tokio::sync::Mutex;

/// Credentials that end sooner are replaced.
const LEFT: Duration = Duration::from_secs(300);

/// A provider whose last credentials are kept.
#[derive(Debug)]
pub(super) struct Kept {
    provider: Option<SharedCredentialsProvider>,
    last: Mutex<Option<Credentials>>,
}

impl Kept {
    /// Keeps what this provider gives; with none, every call fails for want of credentials.
    pub(super) fn shared(provider: Option<SharedCredentialsProvider>) -> SharedCredentialsProvider {
        SharedCredentialsProvider::new(Self {
            provider,
            last: Mutex::default(),
        })
    }

    async fn fresh(&self) -> Result<Credentials, CredentialsError> {
        let mut last = self.last.lock().await;
        if let Some(credentials) = last.as_ref().filter(|last| lasts(last, LEFT)) {
            return Ok(credentials.clone());
        }
        let provider = self.provider.as_ref().ok_or_else(|| {
            CredentialsError::not_loaded("no credentials are configured".to_owned())
        })?;
        match provider.provide_credentials().await {
            Ok(fresh) => Ok(last.insert(fresh).clone()),
            Err(error) => match last.as_ref().filter(|last| lasts(last, Duration::ZERO)) {
                Some(still_good) => Ok(still_good.clone()),
                None => Err(error),
            },
        }
    }
}

/// Whether credentials are good for this long yet.
fn lasts(credentials: &Credentials, least: Duration) -> bool {
    credentials
        .expiry()
        .is_none_or(|end| end > SystemTime::now() + least)
}

impl ProvideCredentials for Kept {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        Provided::new(self.fresh())
    }
}
