//! Programs for the kernel's eBPF machine, as far as rules need them: each rule is a list of tests,
//! and the verdict if all of them hold; the first such rule decides.
//!
//! The kernel refuses a program with instructions that cannot be reached: nothing is added behind a
//! rule without tests.

use crate::bpf::Instruction;

/// Opcodes (instruction-set.rst of the kernel's documentation); `W` are of 32 bits.
const LOAD_W: u8 = 0x61;
const SET: u8 = 0xb7;
const COPY: u8 = 0xbf;
const COPY_W: u8 = 0xbc;
const ADD: u8 = 0x07;
const SHIFT_RIGHT: u8 = 0x77;
const AND_W: u8 = 0x54;
const SKIP_IF: u8 = 0x15;
const SKIP_IF_NOT_W: u8 = 0x56;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// The result, and room for what is compared.
const RESULT: u8 = 0;
/// The context, and the first argument of a helper.
const CONTEXT: u8 = 1;
/// Outlives the call of a helper.
const KEPT_CONTEXT: u8 = 6;
const PROTOCOL: u8 = 7;
/// The end of the stack.
const FRAME: u8 = 10;

/// What becomes of an access or a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Refuse = 0,
    Allow = 1,
}

/// What a register holds, under the mask, is this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) register: u8,
    pub(super) mask: u32,
    pub(super) value: u32,
}

/// The tests of a rule, and what follows from them.
pub(super) type Rule = (Vec<Test>, Verdict);

/// The registers of a program about devices, from struct bpf_cgroup_dev_ctx.
pub(super) mod device {
    pub(in super::super) const KIND: u8 = 2;
    pub(in super::super) const ACCESS: u8 = 3;
    pub(in super::super) const MAJOR: u8 = 4;
    pub(in super::super) const MINOR: u8 = 5;
}

/// The way of a packet, seen from the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

/// The registers of the four words of an address, in the order of the network; of an IPv4 address
/// the first.
pub(super) const ADDRESS: [u8; 4] = [1, 2, 3, 4];

/// Asked for each open(2) and mknod(2) of a device.
pub(super) fn of_devices(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        load(device::KIND, CONTEXT, 0),
        register(COPY, device::ACCESS, device::KIND),
        number(SHIFT_RIGHT, device::ACCESS, 16),
        number(AND_W, device::KIND, 0xffff),
        load(device::MAJOR, CONTEXT, 4),
        load(device::MINOR, CONTEXT, 8),
    ];
    program.extend(first_of(rules, Verdict::Refuse));
    program
}

/// Asked for each packet. What is neither IPv4 nor IPv6 passes.
pub(super) fn of_packets(way: Way, ipv4: &[Rule], ipv6: &[Rule]) -> Vec<Instruction> {
    /// Offset of `protocol` in struct __sk_buff, a number in the order of the network.
    const PROTOCOL_OF: i16 = 16;
    const IPV4: u16 = 0x0800;
    const IPV6: u16 = 0x86dd;
    // Where the other side's address is in the header, RFC 791 and RFC 8200.
    let (v4, v6) = match way {
        Way::In => (12, 8),
        Way::Out => (16, 24),
    };
    let mut program =
        vec![register(COPY, KEPT_CONTEXT, CONTEXT), load(PROTOCOL, KEPT_CONTEXT, PROTOCOL_OF)];
    for (protocol, offset, words, rules) in [(IPV4, v4, 1, ipv4), (IPV6, v6, 4, ipv6)] {
        if rules.is_empty() {
            continue;
        }
        let part = of_address(offset, words, rules);
        program.push(skip(SKIP_IF_NOT_W, PROTOCOL, i32::from(protocol.to_be()), part.len()));
        program.extend(part);
    }
    program.extend(end(Verdict::Allow));
    program
}

/// Reads an address from the packet, and asks the rules.
fn of_address(offset: i32, words: usize, rules: &[Rule]) -> Vec<Instruction> {
    const SKB_LOAD_BYTES: i32 = 26;
    const ROOM: i16 = -16;
    let refused = end(Verdict::Refuse);
    let mut part = vec![
        register(COPY, 1, KEPT_CONTEXT),
        number(SET, 2, offset),
        register(COPY, 3, FRAME),
        number(ADD, 3, ROOM.into()),
        number(SET, 4, 4 * words as i32),
        number(CALL, 0, SKB_LOAD_BYTES),
        // A packet that is too short for its header.
        skip(SKIP_IF, RESULT, 0, refused.len()),
    ];
    part.extend(refused);
    let at = (ROOM..).step_by(4);
    part.extend(ADDRESS[..words].iter().zip(at).map(|(word, at)| load(*word, FRAME, at)));
    part.extend(first_of(rules, Verdict::Allow));
    part
}

fn first_of(rules: &[Rule], otherwise: Verdict) -> Vec<Instruction> {
    let mut program = vec![];
    for (tests, verdict) in rules {
        let mut left = TEST * tests.len() + end(*verdict).len();
        for test in tests {
            left -= TEST;
            program.push(register(COPY_W, RESULT, test.register));
            program.push(number(AND_W, RESULT, test.mask.cast_signed()));
            program.push(skip(SKIP_IF_NOT_W, RESULT, test.value.cast_signed(), left));
        }
        program.extend(end(*verdict));
        if tests.is_empty() {
            return program;
        }
    }
    program.extend(end(otherwise));
    program
}

/// Instructions of a test. The register itself is not compared, even where the mask is all ones: the
/// verifier would know its value behind "equal", follow all later rules once more with that, and
/// give up on a long list.
const TEST: usize = 3;

fn end(verdict: Verdict) -> [Instruction; 2] {
    [number(SET, RESULT, verdict as i32), number(EXIT, 0, 0)]
}

fn load(destination: u8, source: u8, offset: i16) -> Instruction {
    Instruction { offset, ..register(LOAD_W, destination, source) }
}

fn register(code: u8, destination: u8, source: u8) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset: 0, immediate: 0 }
}

fn number(code: u8, destination: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: destination, offset: 0, immediate }
}

/// A rule is far shorter than what an offset can say; a whole list of them may not be.
fn skip(code: u8, compared: u8, immediate: i32, count: usize) -> Instruction {
    let offset = i16::try_from(count).unwrap_or(i16::MAX);
    Instruction { offset, ..number(code, compared, immediate) }
}
