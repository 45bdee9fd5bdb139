//! Tells the autoscaling group that this appliance is to be replaced, seldom (DESIGN, section 4.5).
//!
//! A replacement cures one broken appliance and nothing else, and a cause that all share must not
//! have the group replace one after the other for ever. So each report is claimed first, in a tag
//! of the group: its key is the deployment's, its value when and by whom. Whoever finds a younger
//! claim anywhere in the deployment waits.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};

use super::call::Caller;
use super::error::incomplete;
use super::service::AUTOSCALING;
use super::xml;
use crate::cloud::CloudError;
use crate::config::Health;

/// Self-checks that fail in a row before anything is said.
const FAILURES: u32 = 3;

/// How long one self-check may take.
const CHECK_TIME: Duration = Duration::from_secs(5);

/// Between the claim and the look whether somebody else made one at the same time. A look and a
/// claim that lie further apart than half of it are worth nothing.
const SETTLE: Duration = Duration::from_secs(4);

/// Tags on one page at most (API reference, `DescribeTags`).
const TAGS_PER_PAGE: &str = "100";

/// Who is concerned.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    /// The group that replaces it.
    pub(super) group: String,
    /// The instance.
    pub(super) instance: String,
    /// The deployment, which may have several groups; empty when the account has one deployment.
    pub(super) deployment: String,
}

/// When somebody said that an appliance of this deployment is unhealthy, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    unix_s: u64,
    instance: String,
}

/// Checks for ever.
pub(super) async fn watch(caller: &Caller, subject: &Subject, health: &Health) {
    // The client only ever talks to this machine.
    let client = match reqwest::Client::builder()
        .no_proxy()
        .timeout(CHECK_TIME)
        .build()
    {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "the health of this appliance is not watched");
            return;
        }
    };
    let mut streak = Streak::default();
    loop {
        sleep(health.window() / (FAILURES - 1)).await;
        let trouble = check(&client, &health.url).await.err();
        let Some(why) = streak.note(trouble, Instant::now(), health.window()) else {
            continue;
        };
        if uptime().await < health.uptime() {
            continue;
        }
        match report(caller, subject, health).await {
            Ok(Outcome::Told) => {
                tracing::error!(
                    why,
                    group = subject.group,
                    "this appliance is reported unhealthy, to be replaced"
                );
                streak = Streak::default();
            }
            Ok(Outcome::Another(other)) => {
                tracing::warn!(
                    why,
                    other,
                    "this appliance is unhealthy and not reported: one of the deployment was just now"
                );
            }
            Err(error) => tracing::warn!(%error, why, "reporting this appliance unhealthy"),
        }
    }
}

/// Self-checks failed in a row.
#[derive(Debug, Default)]
struct Streak {
    failures: u32,
    since: Option<Instant>,
}

impl Streak {
    /// Takes note of one self-check; says why it failed once enough of them did for long enough.
    fn note(&mut self, trouble: Option<String>, now: Instant, window: Duration) -> Option<String> {
        let Some(why) = trouble else {
            *self = Self::default();
            return None;
        };
        self.failures = self.failures.saturating_add(1);
        let since = *self.since.get_or_insert(now);
        let is_long = now.duration_since(since) >= window;
        (self.failures >= FAILURES && is_long).then_some(why)
    }
}

/// One self-check.
async fn check(client: &reqwest::Client, url: &str) -> Result<(), String> {
    let answer = client
        .get(url)
        .send()
        .await
        .map_err(|error| crate::chain(&error))?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("healthz answers {status}")),
    }
}

/// How long the machine is up. A machine that does not say is taken for one just started.
async fn uptime() -> Duration {
    let text = tokio::fs::read_to_string("/proc/uptime").await;
    let seconds = text.ok().and_then(|text| {
        let first = text.split_whitespace().next()?;
        first.parse::<f64>().ok()
    });
    Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default()
}

/// Where a report ended.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Told,
    /// This one has the claim.
    Another(String),
}

/// Claims the report, and makes it unless somebody has a younger claim or an equal one.
async fn report(
    caller: &Caller,
    subject: &Subject,
    health: &Health,
) -> Result<Outcome, CloudError> {
    let key = key(&subject.deployment);
    let looked = Instant::now();
    let before = claims(caller, &key).await?;
    let now = unix_s();
    if let Some(other) = youngest(&before, now, health.pause()) {
        return Ok(Outcome::Another(other.instance.clone()));
    }
    let ours = Claim {
        unix_s: now,
        instance: subject.instance.clone(),
    };
    claim(caller, subject, &key, &ours).await?;
    if looked.elapsed() > SETTLE / 2 {
        // Too slow to exclude that another looked meanwhile; the claim stands and holds all back.
        return Ok(Outcome::Another(
            "its own claim, made too slowly".to_owned(),
        ));
    }
    sleep(SETTLE).await;
    let after = claims(caller, &key).await?;
    if let Some(other) = winner(&after, &ours, health.pause()) {
        return Ok(Outcome::Another(other.to_owned()));
    }
    let arguments = [
        ("InstanceId", subject.instance.as_str()),
        ("HealthStatus", "Unhealthy"),
        ("ShouldRespectGracePeriod", "true"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    caller
        .query(AUTOSCALING, "SetInstanceHealth", &arguments)
        .await?;
    Ok(Outcome::Told)
}

/// The tag's key: the deployment's own.
fn key(deployment: &str) -> String {
    match deployment {
        "" => "postern:unhealthy".to_owned(),
        name => format!("postern:unhealthy:{name}"),
    }
}

/// The claim that forbids another one now. One from the future is a clock's trouble and counts.
fn youngest(claims: &[Claim], now: u64, pause: Duration) -> Option<&Claim> {
    claims
        .iter()
        .filter(|claim| now.saturating_sub(claim.unix_s) < pause.as_secs().max(1))
        .max_by_key(|claim| claim.unix_s)
}

/// Who else has the claim: nobody when ours is there and the first of those made about now.
fn winner<'c>(claims: &'c [Claim], ours: &Claim, pause: Duration) -> Option<&'c str> {
    let rank = |claim: &Claim| (claim.unix_s, claim.instance.clone());
    if !claims.contains(ours) {
        return Some(claims.first().map_or("nobody", |other| &other.instance));
    }
    claims
        .iter()
        .filter(|claim| ours.unix_s.saturating_sub(claim.unix_s) < pause.as_secs().max(1))
        .min_by_key(|claim| rank(claim))
        .filter(|first| *first != ours)
        .map(|first| first.instance.as_str())
}

/// Every claim of the deployment, whichever group's tag it is.
async fn claims(caller: &Caller, key: &str) -> Result<Vec<Claim>, CloudError> {
    const CALL: &str = "DescribeTags";
    let mut claims = Vec::new();
    let mut token = None;
    for page in 1.. {
        let mut arguments = vec![
            ("Filters.member.1.Name".to_owned(), "key".to_owned()),
            (
                "Filters.member.1.Values.member.1".to_owned(),
                key.to_owned(),
            ),
            ("MaxRecords".to_owned(), TAGS_PER_PAGE.to_owned()),
        ];
        arguments.extend(token.take().map(|token| ("NextToken".to_owned(), token)));
        let body = caller.query(AUTOSCALING, CALL, &arguments).await?.bytes;
        let document = xml::parse(CALL, page, &body)?;
        let result = xml::child(document.root_element(), "DescribeTagsResult")
            .ok_or_else(|| incomplete(CALL, page, "DescribeTagsResult"))?;
        if xml::child(result, "Tags").is_none() {
            return Err(incomplete(CALL, page, "Tags"));
        }
        let tags = xml::items(result, "Tags");
        claims.extend(tags.filter_map(|tag| read(xml::text(tag, "Value")?)));
        token = xml::text(result, "NextToken").map(ToOwned::to_owned);
        if token.is_none() {
            break;
        }
    }
    Ok(claims)
}

/// What a tag says; one that nobody here wrote says nothing.
fn read(value: &str) -> Option<Claim> {
    let (time, instance) = value.split_once(' ')?;
    Some(Claim {
        unix_s: time.parse().ok()?,
        instance: instance.to_owned(),
    })
}

/// Writes ours, in place of any older one of this group.
async fn claim(
    caller: &Caller,
    subject: &Subject,
    key: &str,
    ours: &Claim,
) -> Result<(), CloudError> {
    let value = format!("{} {}", ours.unix_s, ours.instance);
    let arguments = [
        ("ResourceId", subject.group.as_str()),
        ("ResourceType", "auto-scaling-group"),
        ("Key", key),
        ("Value", &value),
        ("PropagateAtLaunch", "false"),
    ]
    .map(|(name, value)| (format!("Tags.member.1.{name}"), value.to_owned()));
    caller
        .query(AUTOSCALING, "CreateOrUpdateTags", &arguments)
        .await
        .map(drop)
}

fn unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(1_800);

    fn claim(unix_s: u64, instance: &str) -> Claim {
        Claim {
            unix_s,
            instance: instance.to_owned(),
        }
    }

    #[test]
    fn three_failures_over_a_minute_count_and_a_good_check_between_starts_anew() {
        let window = Duration::from_secs(60);
        let start = Instant::now();
        let mut streak = Streak::default();
        let mut at = |seconds: u64, is_bad: bool| {
            let now = start + Duration::from_secs(seconds);
            let trouble = is_bad.then(|| "503".to_owned());
            streak.note(trouble, now, window).is_some()
        };
        assert!(!at(0, true) && !at(10, true) && !at(20, true) && !at(59, true));
        assert!(at(60, true));
        assert!(!at(70, false) && !at(71, true) && !at(131, true));
        assert!(at(140, true));
    }

    #[test]
    fn a_claim_holds_the_deployment_back_for_half_an_hour() {
        let claims = [claim(100, "i-1"), claim(10_000, "i-2")];
        assert_eq!(youngest(&claims, 11_799, PAUSE), Some(&claims[1]));
        assert_eq!(youngest(&claims, 11_800, PAUSE), None);
        assert_eq!(youngest(&claims, 9_000, PAUSE), Some(&claims[1]));
    }

    #[test]
    fn of_two_claims_at_once_one_wins() {
        let (first, second) = (claim(10_000, "i-1"), claim(10_000, "i-2"));
        let old = claim(100, "i-3");
        let both = [old, second.clone(), first.clone()];
        assert_eq!(winner(&both, &first, PAUSE), None);
        assert_eq!(winner(&both, &second, PAUSE), Some("i-1"));
        // Two of one group write the same tag: who is not in it has lost.
        assert_eq!(winner(&both[1..2], &first, PAUSE), Some("i-2"));
    }

    #[test]
    fn each_deployment_has_a_tag_of_its_own() {
        assert_eq!(key(""), "postern:unhealthy");
        assert_eq!(key("blue"), "postern:unhealthy:blue");
        assert_eq!(read("12 i-1"), Some(claim(12, "i-1")));
        assert_eq!(read("soon i-1"), None);
    }
}
