//! The user data the modules make, read by the program that reads it on the appliance.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use e2e::cloud;
use e2e::suite::ROOT;
use e2e::terraform::Terraform;
use serde_json::{Value, json};

use crate::modules::data;

/// A metadata service that has this as user data; its thread ends with the process. Both clouds' answers at once would be
/// refused, so it is one cloud's: IMDSv2 asks for a token first, Compute Engine names its flavour.
fn metadata(user_data: String, gcp: bool) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, &user_data, gcp);
        }
    });
    address
}

fn answer(mut stream: TcpStream, user_data: &str, gcp: bool) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let asked = lines.next().unwrap().unwrap();
    let headers: Vec<String> = lines
        .map(Result::unwrap)
        .take_while(|line| !line.is_empty())
        .collect();
    let said = |header: &str| headers.iter().any(|line| line == header);
    let answer = match (gcp, asked.as_str()) {
        (false, "PUT /latest/api/token HTTP/1.1") => Some("a-token"),
        (false, "GET /latest/user-data HTTP/1.1") if said("X-aws-ec2-metadata-token: a-token") => {
            Some(user_data)
        }
        (true, "GET /computeMetadata/v1/instance/attributes/postern HTTP/1.1")
            if said("Metadata-Flavor: Google") =>
        {
            Some(user_data)
        }
        _ => None,
    };
    let flavour = if gcp {
        "Metadata-Flavor: Google\r\n"
    } else {
        ""
    };
    let (status, body) = answer.map_or(("403 Forbidden", ""), |body| ("200 OK", body));
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{flavour}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .unwrap();
}

/// What the module makes of these variables, by the real Terraform: user data by zone (AWS), or one under "" (GCP).
fn made(module: &str, expression: &str, variables: &Value) -> BTreeMap<String, String> {
    let terraform = Terraform::with_stubs().unwrap();
    let folder = Path::new(ROOT).join("terraform").join(module);
    let work = tempfile::tempdir().unwrap();
    let data = data(&format!("user-data/{module}"));
    let file = work.path().join("variables.tfvars.json");
    fs::write(&file, variables.to_string()).unwrap();
    terraform.run(&folder, &data, &["get"]).unwrap();
    let mut child = terraform
        .command(&folder, &data)
        .arg("console")
        .arg(format!("-var-file={}", file.display()))
        .arg(format!("-state={}", work.path().join("state").display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // What the console prints of a text is a literal; base64 needs no escape in one.
    let question = format!("base64encode(jsonencode({expression}))\n");
    let mut input = child.stdin.take().unwrap();
    input.write_all(question.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let literal = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{literal}");
    serde_json::from_slice(&decode(literal.trim().trim_matches('"'))).unwrap()
}

fn decode(base64: &str) -> Vec<u8> {
    let mut child = Command::new("base64")
        .arg("-d")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(base64.as_bytes()).unwrap();
    drop(input);
    child.wait_with_output().unwrap().stdout
}

/// The files `postern-cloudsync configure` makes of user data, by name.
fn configured(user_data: &str, gcp: bool) -> BTreeMap<String, String> {
    let work = tempfile::tempdir().unwrap();
    let (dmi, out) = (work.path().join("dmi"), work.path().join("out"));
    fs::create_dir(&dmi).unwrap();
    let (field, firmware) = if gcp {
        ("product_name", "Google Compute Engine\n")
    } else {
        ("sys_vendor", "Amazon EC2\n")
    };
    fs::write(dmi.join(field), firmware).unwrap();
    let address = metadata(user_data.to_owned(), gcp);
    let output = Command::new(cloud::binary().unwrap())
        .args(["configure", "--metadata", &address.to_string(), "--out"])
        .arg(&out)
        .arg("--dmi")
        .arg(&dmi)
        .arg("--current")
        .arg(work.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}\n{user_data}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let entries = fs::read_dir(&out).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

fn overlay() -> Value {
    json!({
        "groups": [{ "id": "dc", "rules": [
            { "description": "postern:tls:a.example,\"b\\c\".example" , "cidr": "0.0.0.0/0" },
            { "description": "postern:ssh:git.example", "ports": "22" },
        ] }],
        "clients": [
            { "address": "10.9.0.0/16", "groups": ["dc"] },
            { "address": "fd00::9", "instance": "mainframe", "groups": ["dc", "sg-0a"] },
        ],
    })
}

fn assert_says(files: &BTreeMap<String, String>, file: &str, lines: &[&str]) {
    let text = files.get(file).map_or("", String::as_str);
    for line in lines {
        assert!(
            text.lines().any(|it| it == *line),
            "{file} has no {line}:\n{text}"
        );
    }
}

/// What the DNS front needs of an appliance.
fn dns() -> Value {
    json!({ "upstreams": ["169.254.169.253"], "resolver_sources": ["10.9.8.7", "35.199.192.0/19"], "front_record_types": ["TXT"] })
}

/// A private authority, and more handshakes.
fn certificates() -> Value {
    json!({ "authorities": "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "per_second": 50 })
}

const POSTERN_LINES: [&str; 8] = [
    "front_record_types = [\"TXT\"]",
    "[certificates]",
    "-----BEGIN CERTIFICATE-----",
    "per_second = 50",
    "-----END CERTIFICATE-----",
    "[dns]",
    "resolver_sources = [\"10.9.8.7\", \"35.199.192.0/19\"]",
    "upstreams = [\"169.254.169.253\"]",
];

#[test]
fn aws_user_data_is_what_the_appliance_reads() {
    let least = json!({ "public_subnets": { "eu-west-1a": "subnet-a" } });
    let all = json!({
        "public_subnets": { "eu-west-1a": "subnet-a", "eu-west-1b": "subnet-b" },
        "deployment": "prod",
        "served_vpcs": ["vpc-0123456789abcdef0"],
        "served_cidrs": ["10.9.0.0/16", "fd00::/64"],
        "accounts": [
            { "account": "123456789012", "role": "arn:aws:iam::123456789012:role/postern", "external_id": "an id", "vpcs": ["vpc-1"] },
            { "account": "210987654321", "role": "arn:aws:iam::210987654321:role/postern" },
        ],
        "dns": dns(),
        "certificates": certificates(),
        "overlay": overlay(),
    });
    for text in made("aws/eni", "local.user_data", &least).values() {
        let files = configured(text, false);
        assert!(!files.contains_key("overlay.toml"), "nothing to lay over");
        assert!(
            !files.contains_key("postern.toml"),
            "the system's resolvers"
        );
        assert_says(&files, "cloudsync.toml", &["provider = \"aws\""]);
    }
    let made = made("aws/eni", "local.user_data", &all);
    assert_eq!(made.len(), 2, "one a zone");
    for (zone, text) in made {
        let files = configured(&text, false);
        let group = format!("autoscaling_group = \"postern-prod-{zone}\"");
        let lines = [
            group.as_str(),
            "provider = \"aws\"",
            "launch_hook = \"postern-launch\"",
            "external_id = \"an id\"",
        ];
        assert_says(&files, "cloudsync.toml", &lines);
        assert_says(&files, "overlay.toml", &["instance = \"mainframe\""]);
        assert_says(&files, "postern.toml", &POSTERN_LINES);
    }
}

#[test]
fn gcp_user_data_is_what_the_appliance_reads() {
    let least = json!({
        "region": "europe-west1",
        "network": "projects/p-12345/global/networks/prod",
        "subnetwork": "projects/p-12345/regions/europe-west1/subnetworks/egress",
    });
    let mut all = least.clone();
    let more = json!({
        "deployment": "prod",
        "appliances": 3,
        "networks": ["prod", "p-12345/shared"],
        "service_projects": ["team-a-1234"],
        "serverless_subnets": [{ "name": "europe-west1/run", "tags": ["run"], "service_accounts": ["a@p-12345.iam.gserviceaccount.com"] }],
        "served_cidrs": ["10.9.0.0/16"],
        "dns": dns(),
        "certificates": certificates(),
        "overlay": overlay(),
    });
    let table = all.as_object_mut().unwrap();
    table.extend(more.as_object().unwrap().clone());
    let user_data = |variables| {
        let made = made("gcp/appliance", "{ text = local.user_data }", variables);
        made.get("text").unwrap().clone()
    };
    let files = configured(&user_data(&least), true);
    assert_says(&files, "cloudsync.toml", &["provider = \"gcp\""]);
    assert!(!files.contains_key("overlay.toml"), "nothing to lay over");
    let files = configured(&user_data(&all), true);
    let lines = [
        "deployment = \"prod\"",
        "appliances = 3",
        "name = \"europe-west1/run\"",
    ];
    assert_says(&files, "cloudsync.toml", &lines);
    assert_says(&files, "overlay.toml", &["instance = \"mainframe\""]);
    assert_says(&files, "postern.toml", &POSTERN_LINES);
}
