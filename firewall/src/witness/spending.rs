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
    /// Questions it may still cause that bring nothing new, in thousandths.
    fruitless: u64,
    filled_ms: u64,
}

/// Which of a client's limits a look-up counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charge {
    /// The first look-up of a name.
    Name,
    /// A name that is known, towards another address.
    Miss,
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
        let second = now_ms / 1_000;
        if self.clients.len() >= CLIENTS_MAX && !self.clients.contains_key(&address) {
            self.sweep(now_ms);
            if self.clients.len() >= CLIENTS_MAX {
                return false;
            }
        }
        let client = self.clients.entry(address).or_insert(Client {
            second,
            names: 0,
            misses: 0,
            learnt: 0,
            fruitless: FRUITLESS_MAX,
            filled_ms: now_ms,
        });
        if client.second != second {
            client.second = second;
            (client.names, client.misses, client.learnt) = (0, 0, 0);
        }
        client.fill(now_ms);
        let (count, limit) = match charge {
            Charge::Name => (&mut client.names, NAMES_PER_S),
            Charge::Miss => (&mut client.misses, MISSES_PER_S),
            Charge::Learnt => (&mut client.learnt, LEARNT_PER_S),
        };
        let price = match charge {
            Charge::Name | Charge::Learnt => 0,
            Charge::Miss => questions.saturating_mul(1_000).min(FRUITLESS_MAX),
        };
        if *count >= limit || client.fruitless < price {
            return false;
        }
        *count = count.saturating_add(1);
        client.fruitless = client.fruitless.saturating_sub(price);
        true
    }

    /// Gives back what a look-up cost that brought something new.
    pub(super) fn refund(&mut self, address: IpAddr, questions: u64) {
        if let Some(client) = self.clients.get_mut(&address) {
            let price = questions.saturating_mul(1_000).min(FRUITLESS_MAX);
            client.fruitless = client.fruitless.saturating_add(price).min(FRUITLESS_MAX);
        }
    }

    /// Forgets clients that have everything to spend again.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.clients.retain(|_, client| {
            client.fill(now_ms);
            client.second == now_ms / 1_000 || client.fruitless < FRUITLESS_MAX
        });
    }
}

impl Client {
    fn fill(&mut self, now_ms: u64) {
        let gained = now_ms
            .saturating_sub(self.filled_ms)
            .saturating_mul(FRUITLESS_PER_S);
        self.filled_ms = now_ms;
        self.fruitless = self.fruitless.saturating_add(gained).min(FRUITLESS_MAX);
    }
}

/// Names a client may bring up in a second (DESIGN, section 3).
const NAMES_PER_S: u32 = 20;
/// Misses it may cause in a second.
const MISSES_PER_S: u32 = 10;
/// Names under patterns it may bring up in a second.
const LEARNT_PER_S: u32 = 5;
/// Questions a second that bring nothing new, in the long run: a scan costs no more than this.
const FRUITLESS_PER_S: u64 = 8;
/// The same at once, in thousandths: forty names known before, three questions each, so that a
/// client of an ordinary policy finds the one that has moved.
const FRUITLESS_MAX: u64 = 120_000;
/// Clients whose look-ups are counted apart.
const CLIENTS_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[test]
    fn a_scan_costs_eight_questions_a_second_in_the_long_run() {
        let mut spending = Spending::default();
        let seconds = 60;
        let spent: u64 = (0..seconds * 1_000)
            .filter(|ms| spending.charge(CLIENT, Charge::Miss, 3, *ms))
            .count()
            .try_into()
            .unwrap();
        assert!(spent * 3 <= 120 + seconds * 8, "{} questions", spent * 3);
    }

    #[test]
    fn look_ups_that_help_cost_nothing_beyond_ten_misses_a_second() {
        let mut spending = Spending::default();
        for second in 0..10 {
            let now_ms = second * 1_000;
            let allowed = (0..20)
                .filter(|_| {
                    let charged = spending.charge(CLIENT, Charge::Miss, 3, now_ms);
                    spending.refund(CLIENT, 3);
                    charged
                })
                .count();
            assert_eq!(allowed, 10);
        }
    }

    #[test]
    fn a_client_that_has_everything_again_is_forgotten() {
        let mut spending = Spending::default();
        spending.charge(CLIENT, Charge::Miss, 120, 0);
        spending.sweep(14_000);
        assert_eq!(spending.clients.len(), 1);
        spending.sweep(16_000);
        assert_eq!(spending.clients.len(), 0);
    }
}
