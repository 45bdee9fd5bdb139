//! Many exact names, a tenth of them in use: each is asked about at its own time to live, and nobody asks about the rest.

use super::*;

const NAMES: u32 = 600;
const USED: u32 = 10;
const TTLS: [u32; 3] = [5, 60, 300];
const SECOND_MS: u64 = 1_000;

fn name(index: u32) -> String {
    format!("n{index}.many.example")
}

fn ttl_s(index: u32) -> u32 {
    TTLS[(index / USED) as usize % TTLS.len()]
}

fn address(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(45, 60, 0, 1)) + index)
}

#[test]
fn names_in_use_are_asked_about_at_their_time_to_live_and_others_never_again() {
    let zone = |index| Zone {
        addresses: vec![address(index)],
        at_a_time: 1,
        ttl_s: ttl_s(index),
    };
    let mut world = World::new((0..NAMES).map(|index| (name(index), zone(index))).collect());
    let begun_ms = world.now_ms;
    // Priming, three questions a name, takes what the budget gives.
    world.run_until(begun_ms + 20 * SECOND_MS);
    assert_eq!(world.desk.store.names_bound(), NAMES as usize);
    assert!(
        world.questions <= u64::from(NAMES) * 3 + 60,
        "{}",
        world.questions
    );
    let used: Vec<u32> = (0..NAMES).step_by(USED as usize).collect();
    let mut busiest = 0;
    let mut before = HashMap::new();
    for second in 20..350 {
        let asked = world.questions;
        // Each once in twenty seconds.
        for index in used
            .iter()
            .filter(|index| u64::from(**index / USED) % 20 == second % 20)
        {
            world.dial(&name(*index), address(*index));
        }
        world.run_until(begun_ms + (second + 1) * SECOND_MS);
        if second == 49 {
            before.clone_from(&world.asked);
        }
        if second >= 50 {
            busiest = busiest.max(world.questions - asked);
        }
    }
    assert_eq!((world.fates.lost(), world.fates.slowest_ms), (0, 0));
    let mut sum = 0;
    for index in 0..NAMES {
        let all = |of: &HashMap<String, u64>| of.get(&name(index)).copied().unwrap_or(0);
        let asked = all(&world.asked) - all(&before);
        sum += asked;
        // In five minutes, each time up to a tenth of the time to live before its end.
        let expected = match ttl_s(index) {
            _ if index % USED != 0 => 0..=0,
            5 => 59..=68,
            60 => 4..=7,
            _ => 0..=3,
        };
        assert!(
            expected.contains(&asked),
            "{}: {asked} look-ups, not {expected:?}",
            name(index)
        );
    }
    println!(
        "{} names in use: {sum} look-ups in 300 s, {busiest} questions in the busiest second",
        used.len()
    );
    assert!(
        busiest <= 80,
        "more than the refresh share of 400 a second: {busiest}"
    );
}

/// Ten thousand names take two minutes of the budget: none is given up before its turn.
#[test]
fn every_name_gets_its_first_answer_however_long_its_turn_takes() {
    const MANY: u32 = 4_000;
    let zone = |index| Zone {
        addresses: vec![address(index)],
        at_a_time: 1,
        ttl_s: 60,
    };
    let mut world = World::new((0..MANY).map(|index| (name(index), zone(index))).collect());
    let begun_ms = world.now_ms;
    let mut seconds = 0;
    while world.desk.store.names_bound() < MANY as usize && seconds < 100 {
        seconds += 1;
        world.run_until(begun_ms + seconds * SECOND_MS);
    }
    println!("{MANY} names answered after {seconds} s");
    assert!((30..=60).contains(&seconds), "{seconds} s");
}
