//! A SYN that was let through and that the kernel does not carry: no source port was left for it.

use super::*;

fn unanswered(world: &World, conn: &Conn) -> usize {
    let is_of = |key: &&FlowKey| (key.client, key.server) == (conn.client, conn.server);
    world.unanswered.iter().filter(is_of).count()
}

#[test]
fn a_syn_sent_again_asks_the_kernel_once_it_must_have_an_entry() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls();
    conn.syn(&mut world);
    // A copy beside the first: the kernel may not have had it yet.
    conn.syn(&mut world);
    assert_eq!(unanswered(&world, &conn), 0);
    world.wait(1_000);
    let again = conn.syn(&mut world);
    assert_eq!(world.verdict(again), Some(Verdict::Pass));
    assert_eq!(unanswered(&world, &conn), 1);
    // An entry that may have run out says nothing.
    world.wait(16_000);
    conn.syn(&mut world);
    assert_eq!(unanswered(&world, &conn), 1);
    assert_eq!(world.refusal(), None);
}

#[test]
fn a_flow_without_a_port_is_refused_and_no_other() {
    let mut world = World::new(ordinary());
    let conn = Conn::tls();
    conn.syn(&mut world);
    world.wait(1_000);
    conn.syn(&mut world);
    let key = world.unanswered[0];
    world.call(|inspector, env| inspector.handle_no_port(env, &key));
    assert_eq!(world.refusal(), Some(Reason::NatPorts));
    let reset = world.resets[0];
    assert_eq!(
        (reset.dst, reset.ack),
        (conn.client, conn.isn.wrapping_add(1))
    );
    // Twice said is said once, and a flow that has been answered meanwhile has a port.
    world.call(|inspector, env| inspector.handle_no_port(env, &key));
    let other = Conn::new("10.0.0.1:40001", "203.0.113.5:443");
    other.open(&mut world);
    let key = FlowKey {
        client: other.client,
        server: other.server,
    };
    world.call(|inspector, env| inspector.handle_no_port(env, &key));
    assert_eq!(world.refusal(), Some(Reason::NatPorts));
    assert_eq!(world.inspector.undecided(), 1);
}
