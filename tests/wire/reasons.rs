//! DESIGN, section 5.1: each reason code has an end-to-end test that finds it in the flow log after real packets.

use policy::Reason;

/// The files of this tier; a code is looked for in quotes, as tests name what they expect of the log.
fn tier() -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/wire");
    let files = std::fs::read_dir(folder).unwrap();
    let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    texts.collect()
}

/// Codes that no packet of this build provokes, and why.
const NOT_PROVOKED: [(Reason, &str); 3] = [
    (
        Reason::CertificateInvalid,
        "reserved for the certificate witness",
    ),
    (
        Reason::CertificateRevoked,
        "reserved for the certificate witness",
    ),
    (
        Reason::Internal,
        "a fault of ours; whoever finds a packet for it has found a bug",
    ),
];

#[test]
fn every_reason_is_provoked_by_packets_and_found_in_the_log() {
    let tier = tier();
    let provoked = |reason: &Reason| tier.contains(&format!("\"{}\"", reason.as_str()));
    let excused = |reason: &Reason| NOT_PROVOKED.iter().any(|(one, _)| one == reason);
    for reason in Reason::ALL {
        assert!(
            provoked(reason) != excused(reason),
            "{reason:?}: provoked {}, excused {}",
            provoked(reason),
            excused(reason)
        );
    }
}
