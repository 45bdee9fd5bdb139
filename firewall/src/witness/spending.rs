//! What each client may cause of look-ups, so that one client's scan does not starve another's
//! names. Pure: takes the time.

use std::collections::HashMap;
use std::net::IpAddr;

/// Every client's look-ups of the last moment.
#[derive(Debug, Default)]
pub(super) struct Spending {
    clients: HashMap<IpAddr, Client>,
}

#[derive(Debug)]
struct Client {
    second: u64,
    names: u32,
    misses: u32,
    learnt: u32,
    /// Questions it may still cause at once, in thousandths.
    at_once: Purse,
    /// Questions it may still cause that bring nothing new.
    fruitless: Purse,
}

/// Which of a client's limits a look-up counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charge {
    /// The first look-up of a name.
    Name,
    /// A name that is known, towards another address: asked for on behalf of a SYN at once.
    Miss,
    /// The same, once it is clear that its client does not scan.
    Search,
    /// A name that is known and that a client has claimed, towards another address.
    Claim,
    /// A name that only a pattern covers, for the first time.
    Learnt,
}

impl Spending {
    /// Charges `questions` to a client; false when it has spent its share. Those about a name that
    /// was never asked about are free: there are few of these, and they are counted.
    pub(super) fn charge(
        &mut self,
        address: IpAddr,
        charge: Charge,
        questions: u64,
        now_ms: u64,
    ) -> bool {
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(&address) {
            self.sweep(now_ms);
            if self.clients.len() >= CLIENTS_MAX {
                return false;
            }
        }
        let client = self
            .clients
            .entry(address)
            .or_insert_with(|| Client::new(now_ms));
        client.count_and_pay(charge, questions, now_ms)
    }

    /// Gives back what a look-up cost that brought something new.
    pub(super) fn refund(&mut self, address: IpAddr, charge: Charge, questions: u64) {
        if let Some(client) = self.clients.get_mut(&address) {
            client.fruitless.give_back(questions);
            if charge == Charge::Miss {
                client.at_once.give_back(questions);
            }
        }
    }

    /// Forgets clients that have everything to spend again.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.clients.retain(|_, client| {
            client.fill(now_ms);
            client.second == now_ms / 1_000 || !client.fruitless.is_full()
        });
    }
}

impl Client {
    const fn new(now_ms: u64) -> Self {
        Self {
            second: now_ms / 1_000,
            names: 0,
            misses: 0,
            learnt: 0,
            at_once: Purse::full(AT_ONCE_PER_S, AT_ONCE_MAX, now_ms),
            fruitless: Purse::full(FRUITLESS_PER_S, FRUITLESS_MAX, now_ms),
        }
    }

    fn count_and_pay(&mut self, charge: Charge, questions: u64, now_ms: u64) -> bool {
        let second = now_ms / 1_000;
        if self.second != second {
            self.second = second;
            (self.names, self.misses, self.learnt) = (0, 0, 0);
        }
        self.fill(now_ms);
        let (count, limit) = match charge {
            Charge::Name | Charge::Search => (&mut self.names, NAMES_PER_S),
            Charge::Miss | Charge::Claim => (&mut self.misses, MISSES_PER_S),
            Charge::Learnt => (&mut self.learnt, LEARNT_PER_S),
        };
        let is_free = matches!(charge, Charge::Name | Charge::Learnt);
        let at_once = charge == Charge::Miss;
        let affordable = (is_free || self.fruitless.holds(questions))
            && (!at_once || self.at_once.holds(questions));
        if *count >= limit || !affordable {
            return false;
        }
        *count = count.saturating_add(1);
        if !is_free {
            self.fruitless.pay(questions);
        }
        if at_once {
            self.at_once.pay(questions);
        }
        true
    }

    fn fill(&mut self, now_ms: u64) {
        self.at_once.fill(now_ms);
        self.fruitless.fill(now_ms);
    }
}

/// Questions that may be asked, in thousandths; it fills with time.
#[derive(Debug)]
struct Purse {
    level: u64,
    most: u64,
    per_s: u64,
    filled_ms: u64,
}

impl Purse {
    const fn full(per_s: u64, most: u64, now_ms: u64) -> Self {
        Self {
            level: most,
            most,
            per_s,
            filled_ms: now_ms,
        }
    }

    fn fill(&mut self, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = now_ms;
        let gained = elapsed_ms.saturating_mul(self.per_s);
        self.level = self.level.saturating_add(gained).min(self.most);
    }

    /// What a look-up costs: never more than there ever is.
    fn price(&self, questions: u64) -> u64 {
        questions.saturating_mul(1_000).min(self.most)
    }

    fn holds(&self, questions: u64) -> bool {
        self.level >= self.price(questions)
    }

    fn pay(&mut self, questions: u64) {
        self.level = self.level.saturating_sub(self.price(questions));
    }

    fn give_back(&mut self, questions: u64) {
        let level = self.level.saturating_add(self.price(questions));
        self.level = level.min(self.most);
    }

    const fn is_full(&self) -> bool {
        self.level >= self.most
    }
}

/// Names a client may bring up, or have searched, in a second (DESIGN, section 3).
const NAMES_PER_S: u32 = 20;
/// Look-ups its misses may cause at once in a second.
const MISSES_PER_S: u32 = 10;
/// Names under patterns it may bring up in a second.
const LEARNT_PER_S: u32 = 5;
/// Questions that may be asked before it is clear whether a client scans: six, in thousandths, and
/// three more every second. A scan never causes more than ten in any second, the first included,
/// with one to spare for a clock that is not the resolver's.
const AT_ONCE_MAX: u64 = 6_000;
const AT_ONCE_PER_S: u64 = 3;
/// Questions a second that bring nothing new, in the long run, whatever they are asked for.
const FRUITLESS_PER_S: u64 = 8;
/// The same at once, in thousandths: for a client that dials few addresses and has many names.
const FRUITLESS_MAX: u64 = 120_000;
/// Clients whose look-ups are counted apart.
const CLIENTS_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn clients_counted_apart_are_bounded_and_one_more_has_no_look_up_until_others_are_silent() {
        let client = |number: u32| IpAddr::from(number.to_be_bytes());
        let mut spending = Spending::default();
        for number in 0..u32::try_from(CLIENTS_MAX).unwrap() {
            assert!(spending.charge(client(number), Charge::Miss, 1, 0));
        }
        let more = client(u32::MAX);
        assert!(!spending.charge(more, Charge::Miss, 1, 0));
        assert!(
            spending.charge(client(7), Charge::Miss, 1, 0),
            "who has a place goes on"
        );
        assert_eq!(spending.clients.len(), CLIENTS_MAX);
        assert!(spending.charge(more, Charge::Miss, 1, 3_600_000));
        assert_eq!(spending.clients.len(), 1);
    }

    #[test]
    fn a_scan_causes_no_more_than_nine_questions_in_any_second_and_three_in_the_long_run() {
        for questions in [1, 3] {
            let mut spending = Spending::default();
            let asked: Vec<u64> = (0..60_000)
                .filter(|ms| spending.charge(CLIENT, Charge::Miss, questions, *ms))
                .flat_map(|ms| std::iter::repeat_n(ms, usize::try_from(questions).unwrap()))
                .collect();
            let busiest = asked
                .iter()
                .map(|from| {
                    let within = |at: &&u64| (*from..from + 1_000).contains(*at);
                    asked.iter().filter(within).count()
                })
                .max();
            assert!(busiest <= Some(9), "{busiest:?}");
            assert!(asked.len() <= 6 + 60 * 3, "{}", asked.len());
        }
    }

    #[test]
    fn whatever_a_client_does_it_causes_eight_fruitless_questions_a_second_in_the_long_run() {
        let mut spending = Spending::default();
        let seconds = 60;
        let charges = [Charge::Miss, Charge::Search, Charge::Claim];
        let asked: u64 = (0..seconds * 1_000)
            .flat_map(|ms| charges.map(|charge| (ms, charge)))
            .filter(|(ms, charge)| spending.charge(CLIENT, *charge, 2, *ms))
            .map(|_| 2)
            .sum();
        assert!(asked <= 120 + seconds * 8, "{asked} questions");
    }

    #[test]
    fn look_ups_that_help_cost_nothing_beyond_ten_misses_a_second() {
        let mut spending = Spending::default();
        for second in 0..10 {
            let now_ms = second * 1_000;
            let allowed = (0..20)
                .filter(|_| {
                    let charged = spending.charge(CLIENT, Charge::Miss, 3, now_ms);
                    spending.refund(CLIENT, Charge::Miss, 3);
                    charged
                })
                .count();
            assert_eq!(allowed, 10);
        }
    }

    #[test]
    fn a_client_that_has_everything_again_is_forgotten() {
        let mut spending = Spending::default();
        spending.charge(CLIENT, Charge::Search, 120, 0);
        spending.sweep(14_000);
        assert_eq!(spending.clients.len(), 1);
        spending.sweep(16_000);
        assert_eq!(spending.clients.len(), 0);
    }
}
