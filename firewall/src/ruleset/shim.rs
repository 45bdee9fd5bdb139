//! The queue statement through `iptables`, for kernels without `nft_queue`.
//!
//! One rule per family in `mangle FORWARD`, whose hook runs right after chain `early`. It is no
//! part of the table's transaction and anyone's `iptables -F` removes it; the last chain then drops
//! what it would have queued.

use crate::marks::CLASS_MASK;

/// The comment that tells our rule from others.
const COMMENT: &str = "postern: undecided flows";

/// One command and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimCommand {
    /// The program.
    pub program: &'static str,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// The two rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shim {
    queues: u16,
}

/// Both families' programs.
const PROGRAMS: [&str; 2] = ["iptables-nft", "ip6tables-nft"];

impl Shim {
    /// Rules for queues `0..queues`.
    #[must_use]
    pub const fn new(queues: u16) -> Self {
        Self { queues }
    }

    /// Commands that append the rules.
    #[must_use]
    pub fn apply(&self) -> Vec<ShimCommand> {
        self.commands("-A")
    }

    /// Commands that succeed only while the rules are there.
    #[must_use]
    pub fn check(&self) -> Vec<ShimCommand> {
        self.commands("-C")
    }

    /// Commands that remove one copy of the rules, and fail when there is none.
    #[must_use]
    pub fn remove(&self) -> Vec<ShimCommand> {
        self.commands("-D")
    }

    /// Removes every rule of ours from one family's chain, whatever queues it names. `run` executes a
    /// command and returns what it printed, `None` when it did not succeed.
    pub fn remove_all(program: &'static str, run: &dyn Fn(&ShimCommand) -> Option<String>) {
        let command = |arguments: &[&str]| ShimCommand {
            program,
            arguments: ["-w", "5", "-t", "mangle"]
                .iter()
                .chain(arguments)
                .map(|&argument| argument.to_owned())
                .collect(),
        };
        let listed = run(&command(&["-S", "FORWARD"])).unwrap_or_default();
        // `-S` prints the policy first and then the rules, which are numbered from one. The last one
        // goes first, so that the numbers of the others stay.
        let rules = listed.lines().filter(|line| line.starts_with("-A"));
        let ours: Vec<usize> = (1..)
            .zip(rules)
            .filter(|(_, rule)| rule.contains(COMMENT))
            .map(|(number, _)| number)
            .collect();
        for number in ours.into_iter().rev() {
            // Gone already is as good.
            run(&command(&["-D", "FORWARD", &number.to_string()]));
        }
    }

    fn commands(&self, action: &str) -> Vec<ShimCommand> {
        let class = format!("0/{CLASS_MASK:#x}");
        let queue = match self.queues {
            0 | 1 => ["--queue-num".to_owned(), "0".to_owned()],
            several => [
                "--queue-balance".to_owned(),
                format!("0:{}", several.saturating_sub(1)),
            ],
        };
        PROGRAMS
            .into_iter()
            .map(|program| {
                // `-w`: another program may hold the lock for a moment.
                let fixed = ["-w", "5", "-t", "mangle", action, "FORWARD"];
                let matching = ["-m", "mark", "!", "--mark", &class];
                let comment = ["-m", "comment", "--comment", COMMENT];
                let arguments = fixed
                    .into_iter()
                    .chain(matching)
                    .chain(comment)
                    .chain(["-j", "NFQUEUE"])
                    .map(str::to_owned)
                    .chain(queue.clone())
                    .collect();
                ShimCommand { program, arguments }
            })
            .collect()
    }
}
