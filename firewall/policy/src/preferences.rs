//! Settings of the whole deployment, and the document they are read from.

use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::words::words;
use crate::{Date, Fault, FaultKind, Name};

/// The scope under which a document holds the deployment's preferences.
pub const SCOPE: &str = "%default";

words! {
    /// Which patterns annotations may hold.
    pub enum WildcardExposure {
        /// `?`, and `*` unless a stranger could register what it covers.
        ProhibitPublicSuffix = "prohibit_public_suffix",
        /// None at all.
        None = "none",
        /// `?` only.
        ProhibitAsterisk = "prohibit_asterisk",
        /// Any.
        Nuclear = "nuclear",
    }
}

words! {
    /// Which flow log lines are written.
    pub enum FlowLogVerbosity {
        /// Both sides of every flow.
        Full = "full",
        /// One merged line per flow.
        Sessions = "sessions",
        /// Refusals only.
        OnlyDisallowed = "only_disallowed",
        /// None.
        None = "none",
    }
}

words! {
    /// Whether plain HTTP to certificate revocation lists passes.
    pub enum X509Crls {
        /// It is plain HTTP like any other.
        Ignore = "ignore",
        /// GET to distribution points of revocation lists passes.
        Allow = "allow",
    }
}

words! {
    /// What a definite failure of the certificate witness does.
    pub enum CertificateCheck {
        /// It is logged.
        Observe = "observe",
        /// It ends the flow.
        Enforce = "enforce",
        /// No certificate is looked at.
        Off = "off",
    }
}

words! {
    /// What happens when a destination is not bound to the claimed name.
    pub enum AddressMismatch {
        /// The flow is refused.
        Refuse = "refuse",
        /// The flow passes and its line says what would have happened.
        Observe = "observe",
    }
}

words! {
    /// What happens to a ClientHello with the Encrypted Client Hello extension.
    pub enum Ech {
        /// It is refused.
        Refuse = "refuse",
        /// It is judged by its outer name.
        AllowOuter = "allow_outer",
    }
}

words! {
    /// Whether `http` entries work.
    pub enum PlaintextHttp {
        /// Plain HTTP is refused.
        Refuse = "refuse",
        /// Plain HTTP to listed names passes.
        AllowListed = "allow_listed",
    }
}

words! {
    /// Whether `address` annotations work.
    pub enum AddressRules {
        /// They are faults.
        Refuse = "refuse",
        /// They allow their rule's protocol, ports and CIDR.
        Allow = "allow",
    }
}

words! {
    /// What happens to QUIC.
    pub enum Quic {
        /// It is refused, and clients fall back to TCP at once.
        Refuse = "refuse",
        /// It is judged by the `tls` entries of rules for UDP or all protocols.
        Inspect = "inspect",
    }
}

words! {
    /// What happens to live flows that a newly adopted policy refuses.
    pub enum OnPolicyChange {
        /// They are ended.
        EndRefused = "end_refused",
        /// They continue.
        Keep = "keep",
    }
}

words! {
    /// Whether the appliance answers DNS for its clients.
    pub enum DnsFront {
        /// It does not.
        Off = "off",
        /// It does, for allowed names.
        Enforce = "enforce",
        /// It does, for every name, and logs those it would have refused.
        Observe = "observe",
    }
}

/// The settings of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Preferences {
    /// Which patterns annotations may hold.
    pub wildcard_exposure: WildcardExposure,
    /// Which flow log lines are written.
    pub flow_log_verbosity: FlowLogVerbosity,
    /// The last day, UTC, on which the whole deployment is in see-thru.
    pub see_thru: Option<Date>,
    /// Whether plain HTTP to certificate revocation lists passes.
    pub x509_crls: X509Crls,
    /// What a definite failure of the certificate witness does.
    pub certificate_check: CertificateCheck,
    /// What happens when a destination is not bound to the claimed name.
    pub address_mismatch: AddressMismatch,
    /// What happens to Encrypted Client Hello.
    pub ech: Ech,
    /// Whether `http` entries work.
    pub plaintext_http: PlaintextHttp,
    /// Whether `address` annotations work.
    pub address_rules: AddressRules,
    /// What happens to QUIC.
    pub quic: Quic,
    /// What happens to live flows that a newly adopted policy refuses.
    pub on_policy_change: OnPolicyChange,
    /// Prefixes outside global address space that answers may hold.
    pub allow_private_answers: Vec<IpNet>,
    /// Whether the appliance answers DNS for its clients.
    pub dns_front: DnsFront,
    /// Zones that the DNS front passes through.
    pub internal_zones: Vec<Name>,
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            wildcard_exposure: WildcardExposure::ProhibitPublicSuffix,
            flow_log_verbosity: FlowLogVerbosity::Full,
            see_thru: None,
            x509_crls: X509Crls::Ignore,
            certificate_check: CertificateCheck::Observe,
            address_mismatch: AddressMismatch::Refuse,
            ech: Ech::Refuse,
            plaintext_http: PlaintextHttp::Refuse,
            address_rules: AddressRules::Refuse,
            quic: Quic::Refuse,
            on_policy_change: OnPolicyChange::EndRefused,
            allow_private_answers: Vec::new(),
            dns_front: DnsFront::Off,
            internal_zones: Vec::new(),
        }
    }
}

/// A preferences document that says nothing usable: the last good one stays.
#[derive(Debug, thiserror::Error)]
pub enum UnreadablePreferences {
    /// The text is not JSON.
    #[error("the document is not JSON")]
    Json(#[from] serde_json::Error),
    /// There is no object under `%default`.
    #[error("the document has no object under \"%default\"")]
    Scope,
}

/// A preference that was not taken as written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PreferenceFault {
    /// No preference has this name.
    #[error("unknown preference {0:?}")]
    Unknown(String),
    /// The preference cannot have this value; the text says what it can have.
    #[error("preference {key:?}: {problem}")]
    Invalid {
        /// The preference.
        key: String,
        /// The value, as JSON.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl PreferenceFault {
    /// The same as a fault of the deployment's scope.
    fn into_fault(self) -> Fault {
        let detail = self.to_string();
        match self {
            Self::Unknown(key) => Fault::new(SCOPE, FaultKind::UnknownPreference, &key, detail),
            Self::Invalid { value, .. } => {
                Fault::new(SCOPE, FaultKind::InvalidPreference, &value, detail)
            }
        }
    }
}

impl Preferences {
    /// The name of every preference, in the order of the documentation.
    pub const KEYS: &'static [&'static str] = &[
        "wildcard_exposure",
        "flow_log_verbosity",
        "see_thru",
        "x509_crls",
        "certificate_check",
        "address_mismatch",
        "ech",
        "plaintext_http",
        "address_rules",
        "quic",
        "on_policy_change",
        "allow_private_answers",
        "dns_front",
        "internal_zones",
    ];

    /// Reads a JSON document.
    ///
    /// A key that is absent has its default; a key with an invalid value keeps the value of
    /// `previous`, the last good document; an unknown key is ignored. The latter two are faults.
    ///
    /// # Errors
    ///
    /// When there is nothing to read from; the caller keeps the last good document.
    pub fn read_json(
        text: &str,
        previous: &Self,
    ) -> Result<(Self, Vec<Fault>), UnreadablePreferences> {
        let document: Value = serde_json::from_str(text)?;
        let scopes = document.as_object().ok_or(UnreadablePreferences::Scope)?;
        let table = scopes.get(SCOPE).and_then(Value::as_object);
        let (preferences, mut faults) =
            Self::read_table(table.ok_or(UnreadablePreferences::Scope)?, previous);
        faults.extend(scopes.keys().filter(|scope| *scope != SCOPE).map(|scope| {
            Fault::new(
                SCOPE,
                FaultKind::UnknownPreference,
                scope,
                format!("unknown scope {scope:?}"),
            )
        }));
        Ok((preferences, faults))
    }

    /// Reads the keys of a scope.
    fn read_table(table: &Map<String, Value>, previous: &Self) -> (Self, Vec<Fault>) {
        let mut preferences = Self::default();
        let mut faults = Vec::new();
        for (key, value) in table {
            if let Err(fault) = preferences.set(key, value) {
                preferences.copy(key, previous);
                faults.push(fault.into_fault());
            }
        }
        (preferences, faults)
    }

    /// Sets one preference from its JSON value.
    pub(crate) fn set(&mut self, key: &str, value: &Value) -> Result<(), PreferenceFault> {
        match key {
            "wildcard_exposure" => self.wildcard_exposure = word(key, value)?,
            "flow_log_verbosity" => self.flow_log_verbosity = word(key, value)?,
            "see_thru" => self.see_thru = day(key, value)?,
            "x509_crls" => self.x509_crls = word(key, value)?,
            "certificate_check" => self.certificate_check = word(key, value)?,
            "address_mismatch" => self.address_mismatch = word(key, value)?,
            "ech" => self.ech = word(key, value)?,
            "plaintext_http" => self.plaintext_http = word(key, value)?,
            "address_rules" => self.address_rules = word(key, value)?,
            "quic" => self.quic = word(key, value)?,
            "on_policy_change" => self.on_policy_change = word(key, value)?,
            "allow_private_answers" => self.allow_private_answers = items(key, value, prefix)?,
            "dns_front" => self.dns_front = word(key, value)?,
            "internal_zones" => self.internal_zones = items(key, value, zone)?,
            _ => return Err(PreferenceFault::Unknown(key.to_owned())),
        }
        Ok(())
    }

    /// Takes one preference over from another document.
    fn copy(&mut self, key: &str, previous: &Self) {
        match key {
            "wildcard_exposure" => self.wildcard_exposure = previous.wildcard_exposure,
            "flow_log_verbosity" => self.flow_log_verbosity = previous.flow_log_verbosity,
            "see_thru" => self.see_thru = previous.see_thru,
            "x509_crls" => self.x509_crls = previous.x509_crls,
            "certificate_check" => self.certificate_check = previous.certificate_check,
            "address_mismatch" => self.address_mismatch = previous.address_mismatch,
            "ech" => self.ech = previous.ech,
            "plaintext_http" => self.plaintext_http = previous.plaintext_http,
            "address_rules" => self.address_rules = previous.address_rules,
            "quic" => self.quic = previous.quic,
            "on_policy_change" => self.on_policy_change = previous.on_policy_change,
            "allow_private_answers" => {
                self.allow_private_answers
                    .clone_from(&previous.allow_private_answers);
            }
            "dns_front" => self.dns_front = previous.dns_front,
            "internal_zones" => self.internal_zones.clone_from(&previous.internal_zones),
            _ => {}
        }
    }

    /// Every preference with its value as text, in the order of [`Preferences::KEYS`].
    ///
    /// Lists are joined by commas; `see_thru` off is `null`. Two documents are equal when these
    /// are.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let see_thru = self
            .see_thru
            .map_or_else(|| "null".to_owned(), |date| date.to_string());
        let values = [
            self.wildcard_exposure.to_string(),
            self.flow_log_verbosity.to_string(),
            see_thru,
            self.x509_crls.to_string(),
            self.certificate_check.to_string(),
            self.address_mismatch.to_string(),
            self.ech.to_string(),
            self.plaintext_http.to_string(),
            self.address_rules.to_string(),
            self.quic.to_string(),
            self.on_policy_change.to_string(),
            joined(&self.allow_private_answers),
            self.dns_front.to_string(),
            joined(&self.internal_zones),
        ];
        Self::KEYS.iter().copied().zip(values).collect()
    }
}

/// Values as text, joined by commas.
fn joined<T: ToString>(values: &[T]) -> String {
    values
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

/// An invalid value of a preference.
fn invalid(key: &str, value: &Value, problem: impl ToString) -> PreferenceFault {
    PreferenceFault::Invalid {
        key: key.to_owned(),
        value: value.to_string(),
        problem: problem.to_string(),
    }
}

/// A value that is one of an enum's words.
fn word<T>(key: &str, value: &Value) -> Result<T, PreferenceFault>
where
    T: std::str::FromStr<Err = crate::UnknownWord>,
{
    let text = value
        .as_str()
        .ok_or_else(|| invalid(key, value, "expected a string"))?;
    text.parse()
        .map_err(|fault: crate::UnknownWord| invalid(key, value, fault))
}

/// A value that is a date or `null`.
fn day(key: &str, value: &Value) -> Result<Option<Date>, PreferenceFault> {
    if value.is_null() {
        return Ok(None);
    }
    let text = value
        .as_str()
        .ok_or_else(|| invalid(key, value, "expected a date or null"))?;
    Date::parse(text)
        .map(Some)
        .map_err(|fault| invalid(key, value, fault))
}

/// A value that is an array of texts, each read by `read`.
fn items<T>(
    key: &str,
    value: &Value,
    read: fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, PreferenceFault> {
    let array = value
        .as_array()
        .ok_or_else(|| invalid(key, value, "expected a list"))?;
    array
        .iter()
        .map(|item| {
            item.as_str()
                .ok_or_else(|| "expected a list of strings".to_owned())
        })
        .map(|item| {
            item.and_then(read)
                .map_err(|fault| invalid(key, value, fault))
        })
        .collect()
}

/// An address or prefix.
fn prefix(text: &str) -> Result<IpNet, String> {
    crate::net::parse_prefix(text).map_err(|fault| fault.to_string())
}

/// A DNS zone.
fn zone(text: &str) -> Result<Name, String> {
    Name::parse(text.as_bytes()).map_err(|fault| format!("{text:?}: {fault}"))
}

#[cfg(test)]
mod tests;
