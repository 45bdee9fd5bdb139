//! Which system calls are refused, and to whom. A refused call fails with `EPERM`; nothing is killed.

use std::collections::BTreeMap;

use libc::c_long;
use nix::unistd::{getegid, geteuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use super::{ConfineError, user_to_become};

mod calls;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Built<T> = Result<T, seccompiler::Error>;

/// Who the process, or a child of it, may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identities {
    user: u32,
    group: u32,
}

impl Identities {
    /// The witness's, where it has its own.
    pub(super) fn of(witness: &str) -> Self {
        let own = || Self {
            user: geteuid().as_raw(),
            group: getegid().as_raw(),
        };
        user_to_become(witness).map_or_else(own, |user| Self {
            user: user.uid.as_raw(),
            group: user.gid.as_raw(),
        })
    }
}

/// For every thread and child from here on.
pub(super) fn process(identities: &Identities) -> Result<(), ConfineError> {
    let mut rules = always(calls::NEVER);
    let build = || -> Built<Rules> {
        let mut rules = Rules::new();
        let (user, group) = (identities.user.into(), identities.group.into());
        for (call, arguments, id) in calls::IDENTITY {
            let id = if *id == calls::Id::User { user } else { group };
            // Refused when any of the ids is another one.
            let rule = |index| SeccompRule::new(vec![condition(index, SeccompCmpOp::Ne, id)?]);
            let alternatives = (0..*arguments).map(rule);
            rules.insert(*call, alternatives.collect::<Result<_, _>>()?);
        }
        let any = vec![condition(0, SeccompCmpOp::Ne, 0)?];
        rules.insert(libc::SYS_setgroups, vec![SeccompRule::new(any)?]);
        let namespaces = calls::NEW_NAMESPACES
            .iter()
            .map(|flag| SeccompRule::new(vec![condition(0, masked(*flag), *flag)?]));
        rules.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
        Ok(rules)
    };
    rules.extend(build().map_err(ConfineError::Filter)?);
    deny(rules, libc::EPERM)?;
    // Its flags are in memory, where no filter can see them: callers fall back to `clone`.
    deny(always(&[libc::SYS_clone3]), libc::ENOSYS)
}

/// For a queue thread: what is not on the list is refused.
pub(super) fn queue_thread() -> Result<(), ConfineError> {
    let build = || -> Built<BpfProgram> {
        let mut rules = always(calls::QUEUE);
        let writable_only = || -> Built<Vec<SeccompRule>> {
            let protection = condition(2, masked(calls::PROT_EXEC), 0)?;
            Ok(vec![SeccompRule::new(vec![protection])?])
        };
        rules.insert(libc::SYS_mmap, writable_only()?);
        rules.insert(libc::SYS_mprotect, writable_only()?);
        program(
            rules,
            SeccompAction::Errno(refusal(libc::EPERM)),
            SeccompAction::Allow,
        )
    };
    build()
        .and_then(|program| apply_filter(&program))
        .map_err(ConfineError::Filter)
}

/// For the witness, on top of the process's.
pub(super) fn witness(listens: bool) -> Result<(), ConfineError> {
    let build = || -> Built<Rules> {
        let mut rules = always(calls::NEVER);
        rules.extend(always(calls::WITNESS_NEVER));
        if !listens {
            rules.extend(always(calls::LISTEN));
        }
        // A thread is all it may make of itself.
        let process = condition(0, masked(calls::CLONE_THREAD), 0)?;
        rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![process])?]);
        let flags = |index| -> Built<Vec<SeccompRule>> {
            let refused = calls::OPEN_REFUSED.iter();
            refused
                .map(|flag| SeccompRule::new(vec![condition(index, masked(*flag), *flag)?]))
                .collect::<Result<_, _>>()
                .map_err(Into::into)
        };
        rules.insert(libc::SYS_openat, flags(2)?);
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_open, flags(1)?);
        let others = calls::INTERNET
            .iter()
            .map(|family| condition(0, SeccompCmpOp::Ne, *family));
        let others = SeccompRule::new(others.collect::<Result<_, _>>()?)?;
        rules.insert(libc::SYS_socket, vec![others]);
        Ok(rules)
    };
    deny(build().map_err(ConfineError::Filter)?, libc::EPERM)?;
    deny(always(&[libc::SYS_clone3]), libc::ENOSYS)
}

/// Calls that match whatever their arguments.
fn always(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

const fn masked(bits: u64) -> SeccompCmpOp {
    SeccompCmpOp::MaskedEq(bits)
}

/// Refuses what matches.
fn deny(rules: Rules, errno: i32) -> Result<(), ConfineError> {
    let refuse = SeccompAction::Errno(refusal(errno));
    program(rules, SeccompAction::Allow, refuse)
        .and_then(|program| apply_filter(&program))
        .map_err(ConfineError::Filter)
}

fn refusal(errno: i32) -> u32 {
    errno.unsigned_abs()
}

fn program(rules: Rules, otherwise: SeccompAction, matching: SeccompAction) -> Built<BpfProgram> {
    let target = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, otherwise, matching, target)?;
    Ok(BpfProgram::try_from(filter)?)
}
