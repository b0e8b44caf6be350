//! Filters of system calls, seccomp(2).
//!
//! Two filters at most: [`features`] refuses what `Restrict*=`, `Protect*=` and their kin name,
//! [`list`] obeys `SystemCallFilter=`; the kernel takes the stricter of the two for each call.
//! Their numbers are those of the machine's own ABI. A call by another one (i386 or x32 on
//! x86-64, 32-bit ARM on aarch64) kills the process under either: it would slip through by its
//! other numbers. systemd filters those ABIs, too, unless `SystemCallArchitectures=native`, which
//! here is implied.

mod features;
mod program;

use super::error::{At, Failed, Stage};
use super::sys;
use crate::manifest::{Sandbox, SystemCallFilter};
use program::{Action, Program, Rule};

/// Everything to be installed, made while memory is there.
pub(super) struct Filters(Vec<Program>);

impl Filters {
    /// None are made where nothing is asked for.
    pub(super) fn of(sandbox: &Sandbox) -> Self {
        let mut filters = vec![];
        let rules = features::rules(sandbox);
        if !rules.is_empty() || sandbox.native_only {
            filters.push(Program::new(&rules, Action::Allow));
        }
        // Last, since what it refuses may be needed for the one before.
        filters.extend(sandbox.system_calls.as_ref().map(list));
        Self(filters)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// From now on until the end of the process and of its children. Needs no_new_privs, or
    /// CAP_SYS_ADMIN.
    pub(super) fn install(&self) -> Result<(), Failed> {
        self.0.iter().try_for_each(|program| {
            sys::install_filter(program.instructions())
                .at(Stage::Seccomp, || "install a filter of system calls".into())
        })
    }
}

const KILL: u16 = SystemCallFilter::KILL;

fn list(filter: &SystemCallFilter) -> Program {
    let refuse = |errno: Option<u16>| match errno {
        Some(KILL) | None => Action::Kill,
        Some(errno) => Action::Refuse(errno),
    };
    let default = refuse(filter.errno);
    let rule = |(call, errno): &(u32, Option<u16>)| {
        let action = match errno {
            Some(_) => refuse(*errno),
            None if filter.allow => Action::Allow,
            None => default,
        };
        Rule::of(*call, action)
    };
    let rules: Vec<Rule> = filter.calls.iter().map(rule).collect();
    Program::new(&rules, if filter.allow { default } else { Action::Allow })
}

#[cfg(test)]
mod tests {
    use super::program::run;
    use super::*;

    const EPERM: Action = Action::Refuse(1);

    #[test]
    fn a_list_of_what_is_allowed() {
        let filter = SystemCallFilter {
            allow: true,
            calls: vec![(3, None), (5, Some(38)), (7, Some(KILL))],
            errno: Some(1),
        };
        let program = list(&filter);
        let found = [3, 5, 7, 9].map(|call| run(&program, call, &[]));
        assert_eq!(found, [Action::Allow, Action::Refuse(38), Action::Kill, EPERM]);
        let program = list(&SystemCallFilter { errno: None, ..filter });
        assert_eq!(run(&program, 9, &[]), Action::Kill);
    }

    #[test]
    fn a_list_of_what_is_not() {
        let calls = vec![(3, None), (5, Some(38))];
        let program = list(&SystemCallFilter { allow: false, calls, errno: Some(1) });
        let found = [3, 5, 9].map(|call| run(&program, call, &[]));
        assert_eq!(found, [EPERM, Action::Refuse(38), Action::Allow]);
    }

    #[test]
    fn nothing_asked_is_no_filter() {
        assert!(Filters::of(&Sandbox::default()).is_empty());
        let native = Sandbox { native_only: true, ..Sandbox::default() };
        assert_eq!(Filters::of(&native).0.len(), 1);
    }
}
