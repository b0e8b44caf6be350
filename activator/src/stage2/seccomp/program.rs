//! Rules about system calls as a program for the kernel's classic BPF machine.
//!
//! The program first looks at the ABI of the call, then goes through the rules in their order;
//! the first that fits decides. (For calls that are always allowed the kernel keeps the result,
//! so that the length of the program costs only the others.) Arguments are compared in their
//! lower 32 bits: all that is filtered by is an `int` or a set of flags below that, and the
//! kernel ignores the rest.

use libc::sock_filter;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    /// It fails with that errno.
    Refuse(u16),
    /// SIGSYS ends the process.
    Kill,
}

impl Action {
    fn code(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Refuse(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
            Self::Kill => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

/// A question about one argument, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Is(u32, u32),
    IsNot(u32, u32),
    /// Any of these bits is set.
    HasAny(u32, u32),
    /// All of these bits are set.
    HasAll(u32, u32),
}

/// If the call is this one, and all is as asked, then this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    call: u32,
    tests: Vec<Test>,
    action: Action,
}

impl Rule {
    /// Whatever the arguments are.
    pub(super) fn of(call: u32, action: Action) -> Self {
        Self::when(call, &[], action)
    }

    pub(super) fn when(call: u32, tests: &[Test], action: Action) -> Self {
        Self { call, tests: tests.to_vec(), action }
    }
}

/// Ready for the kernel.
#[derive(Debug, Clone)]
pub(super) struct Program(Vec<sock_filter>);

#[cfg(target_arch = "x86_64")]
const ABI: u32 = 0xc000_003e; // AUDIT_ARCH_X86_64
#[cfg(target_arch = "aarch64")]
const ABI: u32 = 0xc000_00b7; // AUDIT_ARCH_AARCH64

/// __X32_SYSCALL_BIT: no call of the machine's own ABI has it.
const X32: u32 = 0x4000_0000;
/// The number that a tracer sets to skip a call, which the kernel then refuses itself.
const SKIPPED: u32 = u32::MAX;

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// The lower half of an argument, on a machine of little endian.
fn argument(index: u32) -> u32 {
    16 + 8 * index
}

impl Program {
    /// Each rule before the next; `default` is for what no rule fits.
    pub(super) fn new(rules: &[Rule], default: Action) -> Self {
        let mut program = Self(vec![]);
        program.load(ARCHITECTURE);
        program.skip_if(libc::BPF_JEQ, ABI, 1, 0);
        program.end(Action::Kill);
        program.load(NUMBER);
        program.skip_if(libc::BPF_JGE, X32, 0, 2);
        program.skip_if(libc::BPF_JEQ, SKIPPED, 1, 0);
        program.end(Action::Kill);
        for rule in rules {
            program.add(rule);
        }
        program.end(default);
        program
    }

    pub(super) fn instructions(&self) -> &[sock_filter] {
        &self.0
    }

    /// In the accumulator is the number of the call, before and after.
    fn add(&mut self, rule: &Rule) {
        if rule.tests.is_empty() {
            self.skip_if(libc::BPF_JEQ, rule.call, 0, 1);
            return self.end(rule.action);
        }
        // Two for each test, three for a mask; then the end, and the number again.
        let length: usize = rule.tests.iter().map(length_of).sum();
        self.skip_if(libc::BPF_JEQ, rule.call, 0, length as u8 + 2);
        let mut left = length;
        for test in &rule.tests {
            left -= length_of(test);
            self.test(test, left as u8 + 1);
        }
        self.end(rule.action);
        self.load(NUMBER);
    }

    /// Goes on if it is true, else skips so many.
    fn test(&mut self, test: &Test, skip: u8) {
        match *test {
            Test::Is(index, value) => {
                self.load(argument(index));
                self.skip_if(libc::BPF_JEQ, value, 0, skip);
            }
            Test::IsNot(index, value) => {
                self.load(argument(index));
                self.skip_if(libc::BPF_JEQ, value, skip, 0);
            }
            Test::HasAny(index, mask) => {
                self.load(argument(index));
                self.skip_if(libc::BPF_JSET, mask, 0, skip);
            }
            Test::HasAll(index, mask) => {
                self.load(argument(index));
                self.push(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0);
                self.skip_if(libc::BPF_JEQ, mask, 0, skip);
            }
        }
    }

    fn load(&mut self, offset: u32) {
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    }

    /// Skips `yes` instructions if the comparison holds, else `no`.
    fn skip_if(&mut self, comparison: u32, value: u32, yes: u8, no: u8) {
        self.push(libc::BPF_JMP | comparison | libc::BPF_K, value, yes, no);
    }

    fn end(&mut self, action: Action) {
        self.push(libc::BPF_RET | libc::BPF_K, action.code(), 0, 0);
    }

    fn push(&mut self, code: u32, k: u32, jt: u8, jf: u8) {
        self.0.push(sock_filter { code: code as u16, jt, jf, k });
    }
}

fn length_of(test: &Test) -> usize {
    match test {
        Test::HasAll(..) => 3,
        _ => 2,
    }
}

/// The kernel's machine, as far as the programs here use it.
#[cfg(test)]
pub(super) fn run_on(program: &Program, abi: u32, call: u32, arguments: &[u64]) -> Action {
    let word = |offset: u32| match offset {
        NUMBER => call,
        ARCHITECTURE => abi,
        offset => arguments.get((offset as usize - 16) / 8).copied().unwrap_or(0) as u32,
    };
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let it = program.0[at];
        at += 1;
        let code = u32::from(it.code);
        let holds = match code & !(libc::BPF_JMP | libc::BPF_K) {
            libc::BPF_JEQ => accumulator == it.k,
            libc::BPF_JGE => accumulator >= it.k,
            libc::BPF_JGT => accumulator > it.k,
            _ => accumulator & it.k != 0,
        };
        match code & 7 {
            libc::BPF_LD => accumulator = word(it.k),
            libc::BPF_ALU => accumulator &= it.k,
            libc::BPF_JMP => at += usize::from(if holds { it.jt } else { it.jf }),
            _ => {
                return match it.k {
                    libc::SECCOMP_RET_ALLOW => Action::Allow,
                    libc::SECCOMP_RET_KILL_PROCESS => Action::Kill,
                    errno => Action::Refuse(errno as u16),
                };
            }
        }
    }
}

#[cfg(test)]
pub(super) fn run(program: &Program, call: u32, arguments: &[u64]) -> Action {
    run_on(program, ABI, call, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO: Action = Action::Refuse(1);

    #[test]
    fn every_test_and_the_first_rule_that_fits() {
        let rules = [
            Rule::when(1, &[Test::Is(0, 5), Test::IsNot(1, 6)], NO),
            Rule::when(2, &[Test::HasAny(5, 2)], NO),
            Rule::when(3, &[Test::HasAll(2, 6), Test::HasAny(0, 3)], NO),
            Rule::of(4, Action::Refuse(2)),
            Rule::of(4, Action::Kill),
            Rule::when(1, &[Test::Is(0, 7)], Action::Kill),
        ];
        let program = Program::new(&rules, Action::Allow);
        let cases: [(u32, &[u64], Action); 16] = [
            (1, &[5, 7], NO),
            (1, &[5, 6], Action::Allow),
            (1, &[4, 7], Action::Allow),
            (1, &[7, 6], Action::Kill),
            (2, &[0, 0, 0, 0, 0, 10], NO),
            (2, &[0, 0, 0, 0, 0, 9], Action::Allow),
            (3, &[2, 0, 7], NO),
            (3, &[1, 0, 6], NO),
            (3, &[4, 0, 6], Action::Allow),
            (3, &[1, 0, 4], Action::Allow),
            (4, &[], Action::Refuse(2)),
            (5, &[], Action::Allow),
            // The kernel takes an int of these.
            (1, &[5 | 1 << 32, 7], NO),
            (1 | X32, &[5, 7], Action::Kill),
            (X32, &[], Action::Kill),
            (SKIPPED, &[], Action::Allow),
        ];
        for (call, arguments, expected) in cases {
            assert_eq!(run(&program, call, arguments), expected, "{call} {arguments:?}");
        }
        // AUDIT_ARCH_I386
        assert_eq!(run_on(&program, 0x4000_0003, 5, &[]), Action::Kill);
    }
}
