//! What is in the image, seen from inside a machine that runs it.

use anyhow::{Result, ensure};
use e2e::image::{Guest, Report, clock};

use super::SOON;

/// Looks at it on a machine that has its policy.
pub(super) fn run(guest: &mut Guest, report: &mut Report) {
    report.claim(
        "packages_bring_manuals_completions_settings_and_notices",
        |_| documents(guest),
    );
    report.claim("clock_follows_the_clouds_own_time_service", |_| {
        let following = format!("chronyc -c -n tracking | grep -q ',{},'", clock::ADDRESS);
        guest.wait_for(&following, SOON).map(drop)
    });
    report.claim(
        "overlay_of_user_data_is_laid_over_the_clouds_clients",
        |_| {
            // No interface of the account has the address.
            let allowed = "postern explain --live 10.77.1.66 tls api.allowed.example";
            guest.wait_for(allowed, SOON)?;
            guest.run("! postern explain --live 10.77.1.67 tls api.allowed.example")?;
            let kept = guest.run("stat -c '%U:%G %a' /etc/postern/overlay.toml")?;
            ensure!(kept == "root:root 644", "{kept}");
            Ok(())
        },
    );
    report.claim("units_are_hardened", |report| {
        for unit in ["postern", "postern-cloudsync"] {
            let said = guest.run(&format!(
                "SYSTEMD_COLORS=0 systemd-analyze security --no-pager {unit}.service | tail -n 1"
            ))?;
            // Overall exposure level for postern.service: 2.1 OK
            let score = said
                .split_whitespace()
                .find_map(|word| word.parse::<f64>().ok());
            report.figure(&format!("systemd-analyze security {unit}"), &said);
            ensure!(score.is_some_and(|score| score <= EXPOSED), "{said}");
        }
        Ok(())
    });
}

/// At the end, after everything that was tried: the kernel never had to take memory away, and half a GiB is over.
pub(super) fn memory(guest: &mut Guest, report: &mut Report) {
    report.claim("one_gibibyte_is_enough", |report| {
        guest.run("! dmesg | grep -iE 'out of memory|oom-kill|page allocation failure'")?;
        let left = guest.run("awk '$1 == \"MemAvailable:\" { print $2 }' /proc/meminfo")?;
        report.figure("memory left over of 1 GiB, KiB", &left);
        ensure!(left.parse::<u64>()? > LEFT_KIB, "{left} KiB left over");
        Ok(())
    });
}

fn documents(guest: &mut Guest) -> Result<()> {
    for program in ["postern", "postern-cloudsync"] {
        guest.run(&format!(
            "set -e; zcat /usr/share/man/man1/{program}.1.gz | grep -q '^.TH'; \
             test -s /usr/share/bash-completion/completions/{program}; \
             test -s /usr/share/zsh/vendor-completions/_{program}; \
             test -s /usr/share/fish/vendor_completions.d/{program}.fish; \
             grep -q '\"bomFormat\": *\"CycloneDX\"' /usr/share/doc/{program}/sbom.cdx.json; \
             zcat /usr/share/doc/{program}/NOTICE.gz | grep -q '^======== tokio '; \
             test -s /usr/share/doc/{program}/copyright"
        ))?;
    }
    // Every key is there, and every one is a comment: the file as installed changes nothing.
    guest.run(
        "set -e; for name in postern cloudsync; do grep -q '^#[a-z_]* = ' /usr/share/postern/$name.toml; \
         ! grep -qE '^[a-z_]+ *=' /usr/share/postern/$name.toml; done",
    )?;
    Ok(())
}

/// By systemd's score, from 0, shut, to 10; it calls 4 "OK", and most of Debian's own units have 9.
const EXPOSED: f64 = 3.0;
const LEFT_KIB: u64 = 256 << 10;
