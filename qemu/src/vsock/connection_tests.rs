//! The rules, without any socket: events in, wishes out.

use super::*;

const WINDOW: u32 = 1000;

fn packet(connection: &mut Connection, op: Op, len: u32, flags: u32) -> Reaction {
    let header = Header { op: op as u16, len, flags, buf_alloc: 100, ..Header::default() };
    connection.packet(&header, op)
}

/// A connection that the host asked for and the guest has accepted.
fn open() -> Connection {
    let mut connection = Connection::from_host(WINDOW);
    assert_eq!(connection.owed(), Some(Op::Request));
    connection.send(Op::Request, 0);
    assert_eq!(packet(&mut connection, Op::Response, 0, 0), Reaction::Accepted);
    connection
}

#[test]
fn the_host_asks_and_the_guest_accepts() {
    let mut connection = Connection::from_host(WINDOW);
    assert!(!connection.guest_knows());
    assert_eq!(connection.send(Op::Request, 0).buf_alloc, WINDOW);
    assert!(connection.guest_knows());
    assert_eq!((connection.owed(), connection.may_send()), (None, 0));
    assert_eq!(packet(&mut connection, Op::Response, 0, 0), Reaction::Accepted);
    assert_eq!((connection.phase(), connection.may_send()), (Phase::Open, 100));
}

#[test]
fn the_guest_asks_and_bytes_follow_the_response() {
    let request = Header { buf_alloc: 50, ..Header::default() };
    let mut connection = Connection::from_guest(&request, WINDOW);
    assert_eq!((connection.owed(), connection.may_send()), (None, 0));
    connection.host_answered();
    assert_eq!((connection.owed(), connection.may_send()), (Some(Op::Response), 0));
    connection.send(Op::Response, 0);
    assert_eq!(connection.may_send(), 50);
}

#[test]
fn a_refusal_ends_it() {
    let mut connection = Connection::from_host(WINDOW);
    connection.send(Op::Request, 0);
    assert_eq!(packet(&mut connection, Op::Reset, 0, 0), Reaction::Nothing);
    assert_eq!(connection.is_over(), Some(End::Refused));
    assert_eq!(connection.owed(), None);
}

#[test]
fn an_answer_before_the_question_is_a_violation() {
    let mut connection = Connection::from_host(WINDOW);
    assert_eq!(packet(&mut connection, Op::Response, 0, 0), Reaction::Reset);
}

#[test]
fn a_half_close_of_the_host_leaves_the_other_half() {
    let mut connection = open();
    connection.host_ended();
    assert_eq!(connection.owed(), Some(Op::Shutdown));
    assert_eq!(connection.send(Op::Shutdown, 0).flags, NO_SEND);
    assert_eq!((connection.owed(), connection.may_send()), (None, 0));
    assert_eq!(packet(&mut connection, Op::Data, 10, 0), Reaction::Deliver);
    assert_eq!(connection.phase(), Phase::Open);
}

#[test]
fn a_half_close_of_the_guest_waits_for_what_is_held() {
    let mut connection = open();
    assert_eq!(packet(&mut connection, Op::Data, 10, 0), Reaction::Deliver);
    assert_eq!(packet(&mut connection, Op::Shutdown, 0, NO_SEND), Reaction::Nothing);
    assert_eq!((connection.host_wish(), connection.held()), (HostWish::ShutWrite, 10));
    connection.host_took(10);
    connection.host_told(HostWish::ShutWrite);
    assert_eq!((connection.host_wish(), connection.owed()), (HostWish::Nothing, None));
    assert_eq!(connection.may_send(), 100, "the other half lives");
}

#[test]
fn when_both_halves_are_closed_the_guest_is_asked_to_confirm() {
    let mut connection = open();
    packet(&mut connection, Op::Shutdown, 0, NO_SEND);
    connection.host_told(HostWish::ShutWrite);
    connection.host_ended();
    assert_eq!(connection.send(Op::Shutdown, 0).flags, NO_MORE);
    assert_eq!(connection.phase(), Phase::Closing);
    packet(&mut connection, Op::Reset, 0, 0);
    assert_eq!(connection.is_over(), Some(End::Clean));
}

#[test]
fn when_the_guest_closes_bytes_that_are_held_stay_held() {
    let mut connection = open();
    packet(&mut connection, Op::Data, 10, 0);
    assert_eq!(packet(&mut connection, Op::Shutdown, 0, NO_MORE), Reaction::Reset);
    assert_eq!(connection.is_over(), Some(End::Clean));
    assert_eq!((connection.held(), connection.host_reads()), (10, true));
}

#[test]
fn shutdowns_add_up() {
    let mut connection = open();
    assert_eq!(packet(&mut connection, Op::Shutdown, 0, NO_RECEIVE), Reaction::Nothing);
    assert_eq!((connection.host_wish(), connection.may_send()), (HostWish::ShutRead, 0));
    connection.host_told(HostWish::ShutRead);
    assert_eq!(packet(&mut connection, Op::Data, 10, 0), Reaction::Deliver);
    assert_eq!(packet(&mut connection, Op::Shutdown, 0, NO_SEND), Reaction::Reset);
    assert_eq!(connection.is_over(), Some(End::Clean));
}

#[test]
fn a_host_that_is_gone_is_announced_once() {
    let mut connection = open();
    packet(&mut connection, Op::Data, 10, 0);
    connection.host_refused();
    assert_eq!(connection.held(), 0, "what it refused is not held");
    assert_eq!(connection.send(Op::Shutdown, 0).flags, NO_RECEIVE);
    assert_eq!(connection.owed(), None);
    assert_eq!(packet(&mut connection, Op::Data, 10, 0), Reaction::Nothing);
    connection.host_ended();
    assert_eq!(connection.send(Op::Shutdown, 0).flags, NO_MORE);
    assert_eq!(connection.phase(), Phase::Closing);
    assert!(connection.timed_out(), "the guest is reset if it does not confirm");
    assert_eq!(connection.is_over(), Some(End::Clean));
}

#[test]
fn violations_end_with_a_reset() {
    for (op, len) in [(Op::Response, 0), (Op::Data, WINDOW + 1), (Op::Request, 0)] {
        let mut connection = open();
        assert_eq!(packet(&mut connection, op, len, 0), Reaction::Reset, "{op:?}");
        assert_eq!(connection.is_over(), Some(End::Reset));
        assert_eq!(packet(&mut connection, Op::Data, 1, 0), Reaction::Nothing);
    }
    let mut connection = open();
    packet(&mut connection, Op::Shutdown, 0, NO_SEND);
    assert_eq!(packet(&mut connection, Op::Data, 1, 0), Reaction::Reset, "it had ended");
    let mut connection = open();
    let lie = Header { fwd_cnt: 1, buf_alloc: 100, ..Header::default() };
    assert_eq!(connection.packet(&lie, Op::CreditUpdate), Reaction::Reset, "nothing was sent");
}

#[test]
fn credit_goes_both_ways() {
    let mut connection = open();
    connection.send(Op::Data, 100);
    assert_eq!(connection.may_send(), 0);
    connection.starved();
    assert_eq!(connection.owed(), Some(Op::CreditRequest));
    connection.send(Op::CreditRequest, 0);
    connection.starved();
    assert_eq!(connection.owed(), None, "it is asked once");
    let update = Header { fwd_cnt: 60, buf_alloc: 100, ..Header::default() };
    connection.packet(&update, Op::CreditUpdate);
    assert_eq!(connection.may_send(), 60);

    packet_from(&mut connection, Op::Data, 250, 60);
    connection.host_took(250);
    assert_eq!(connection.owed(), Some(Op::CreditUpdate));
    assert_eq!(connection.send(Op::CreditUpdate, 0).fwd_cnt, 250);
    assert_eq!(connection.owed(), None);
    packet_from(&mut connection, Op::CreditRequest, 0, 60);
    assert_eq!(connection.owed(), Some(Op::CreditUpdate));
}

fn packet_from(connection: &mut Connection, op: Op, len: u32, fwd_cnt: u32) {
    let header = Header { len, fwd_cnt, buf_alloc: 100, ..Header::default() };
    connection.packet(&header, op);
}

#[test]
fn no_order_of_events_breaks_an_invariant() {
    let mut state = 0x1234_5678_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let ops = [
        Op::Request,
        Op::Response,
        Op::Reset,
        Op::Shutdown,
        Op::Data,
        Op::CreditUpdate,
        Op::CreditRequest,
    ];
    for _ in 0..20_000 {
        let mut connection = match random(3) {
            0 => Connection::from_host(WINDOW),
            1 => Connection::from_guest(&Header { buf_alloc: 100, ..Header::default() }, WINDOW),
            _ => open(),
        };
        let mut told = 0;
        for _ in 0..40 {
            let over = connection.is_over();
            match random(10) {
                0..3 => {
                    let header = Header {
                        len: random(1200) as u32,
                        flags: random(5) as u32,
                        buf_alloc: random(200) as u32,
                        fwd_cnt: random(3) as u32,
                        ..Header::default()
                    };
                    connection.packet(&header, ops[random(7) as usize]);
                }
                3 => connection.host_answered(),
                4 => connection.host_took(random(500) as u32),
                5 if random(4) == 0 => connection.host_refused(),
                6 if random(4) == 0 => connection.host_ended(),
                7 => {
                    let wish = connection.host_wish();
                    connection.host_told(wish);
                }
                _ => {
                    if let Some(op) = connection.owed() {
                        let header = connection.send(op, 0);
                        assert_eq!(header.flags & told, if op == Op::Shutdown { told } else { 0 });
                        told |= header.flags;
                        assert!(op != Op::Shutdown || header.flags != 0);
                    } else if connection.may_send() > 0 {
                        assert_eq!(told & NO_SEND, 0, "no bytes after their end");
                        connection.send(Op::Data, connection.may_send());
                    }
                }
            }
            assert!(connection.held() <= WINDOW);
            assert!(connection.may_send() <= 200);
            assert!(over.is_none() || connection.is_over() == over, "over is for good");
            assert!(over.is_none() || connection.owed().is_none());
        }
    }
}
