//! Packets first: the threads that a change of policy keeps busy step back.
//!
//! Compiling a large policy and judging live flows by it take a processor for tens of milliseconds. A queue thread that
//! wakes up meanwhile is to have it at once, not after the other's turn.

/// Lets the calling thread, and those it starts from here on, go after the queue threads.
pub fn step_back() {
    if let Err(error) = rustix::process::nice(STEPS) {
        tracing::debug!(%error, "stepping back");
    }
}

/// A third of the share of a thread that does not step back, where both want one processor.
const STEPS: i32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_steps_back_alone() {
        let of = || rustix::process::getpriority_process(None).unwrap();
        let before = of();
        let there = std::thread::spawn(move || {
            step_back();
            (of(), std::thread::spawn(of).join().unwrap())
        });
        let lower = (before + STEPS).min(19);
        assert_eq!(there.join().unwrap(), (lower, lower));
        assert_eq!(of(), before);
    }
}
