//! Whether the kernel's clock is disciplined by anybody.
//!
//! The only module of this crate with `unsafe` in it: the kernel says it through `adjtimex(2)` alone, and no library
//! wraps the reading of it.

/// Whether something (chrony, systemd-timesyncd, the hypervisor) keeps the clock right; `None` where the kernel does not say.
pub fn is_synchronised() -> Option<bool> {
    // SAFETY: `timex` is a plain structure of integers, for which zero is a value; `modes: 0` asks and changes nothing.
    #[expect(unsafe_code, reason = "no library wraps adjtimex for reading")]
    let mut time: libc::timex = unsafe { std::mem::zeroed() };
    time.modes = 0;
    // SAFETY: the pointer is to a structure of our own that outlives the call.
    #[expect(unsafe_code, reason = "no library wraps adjtimex for reading")]
    let state = unsafe { libc::adjtimex(&raw mut time) };
    (state >= 0).then_some(time.status & libc::STA_UNSYNC == 0)
}
