//! eBPF programs at cgroups, bpf(2): stage 2 puts them there, and PID 1 takes away what a manifest
//! before has left.
#![allow(unsafe_code)]

use rustix::io::Errno;
use std::ffi::c_int;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// struct bpf_insn, linux/bpf.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u8,
    /// The destination in the lower half, on a machine of little endian; the source above it.
    pub registers: u8,
    /// Of a load, or how many instructions to skip.
    pub offset: i16,
    /// A number.
    pub immediate: i32,
}

/// Where a cgroup asks a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Each packet that comes in.
    Ingress,
    /// Each packet that goes out.
    Egress,
    /// Each open(2) and mknod(2) of a device.
    Device,
}

impl Hook {
    /// BPF_CGROUP_*, enum bpf_attach_type of linux/bpf.h.
    fn attach_type(self) -> u32 {
        match self {
            Self::Ingress => 0,
            Self::Egress => 1,
            Self::Device => 6,
        }
    }

    /// BPF_PROG_TYPE_*.
    fn program_type(self) -> u32 {
        match self {
            Self::Ingress | Self::Egress => 8,
            Self::Device => 15,
        }
    }
}

/// The programs at a cgroup, by their ids: BPF_CGROUP_MAX_PROGS of them at most.
struct Programs {
    ids: [u32; 64],
    count: usize,
}

/// The name of our programs, BPF_OBJ_NAME_LEN.
const NAME: [u8; 16] = *b"rouse\0\0\0\0\0\0\0\0\0\0\0";

/// Puts a program at a cgroup in the place of ours that are there, or takes these away. The new one
/// is there before they go, and must agree with those of cgroups above. The kernel verifies it.
/// Nothing is allocated.
pub fn replace(
    cgroup: BorrowedFd<'_>,
    hook: Hook,
    program: Option<&[Instruction]>,
) -> Result<(), Errno> {
    let old = programs_at(cgroup, hook)?;
    if let Some(program) = program {
        attach(cgroup, hook, &load(hook, program)?)?;
    }
    detach(cgroup, hook, &old)
}

/// With the beginning of union bpf_attr, as long as the command needs it; what is not given is zero
/// to the kernel.
///
/// # Safety
/// Addresses in the attributes are live for what the command does with them.
unsafe fn bpf<T>(command: c_int, attributes: &mut T) -> Result<c_int, Errno> {
    let attributes = std::ptr::from_mut(attributes);
    // SAFETY: a live structure, and its size; what it points to is the caller's care.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 {
        // SAFETY: errno is this thread's own.
        return Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }));
    }
    Ok(result as c_int)
}

fn load(hook: Hook, instructions: &[Instruction]) -> Result<OwnedFd, Errno> {
    const BPF_PROG_LOAD: c_int = 5;
    #[repr(C)]
    struct Attributes {
        program_type: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log: [u64; 2],
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
    }
    let mut attributes = Attributes {
        program_type: hook.program_type(),
        count: u32::try_from(instructions.len()).map_err(|_| Errno::TOOBIG)?,
        instructions: instructions.as_ptr() as u64,
        // Helpers under the GPL are for programs under it.
        license: c"MIT".as_ptr() as u64,
        log: [0; 2],
        kernel_version: 0,
        flags: 0,
        name: NAME,
    };
    // SAFETY: as many instructions of the kernel's layout as it says, and a C string.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attributes)? };
    // SAFETY: the kernel has just made it, close-on-exec, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attach(cgroup: BorrowedFd<'_>, hook: Hook, program: &OwnedFd) -> Result<(), Errno> {
    const BPF_PROG_ATTACH: c_int = 8;
    /// Beside others, and those of cgroups above and below: all of them must agree.
    const BPF_F_ALLOW_MULTI: u32 = 2;
    let (cgroup, program) = (cgroup.as_raw_fd(), program.as_raw_fd());
    let mut attributes = [cgroup as u32, program as u32, hook.attach_type(), BPF_F_ALLOW_MULTI];
    // SAFETY: target_fd, attach_bpf_fd, attach_type, attach_flags: numbers only.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attributes) }.map(drop)
}

fn programs_at(cgroup: BorrowedFd<'_>, hook: Hook) -> Result<Programs, Errno> {
    const BPF_PROG_QUERY: c_int = 16;
    #[repr(C)]
    struct Attributes {
        cgroup: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        /// Newer kernels write there, too.
        reserved: [u64; 4],
    }
    let mut programs = Programs { ids: [0; 64], count: 0 };
    let mut attributes = Attributes {
        cgroup: cgroup.as_raw_fd() as u32,
        attach_type: hook.attach_type(),
        query_flags: 0,
        attach_flags: 0,
        programs: programs.ids.as_mut_ptr() as u64,
        count: programs.ids.len() as u32,
        reserved: [0; 4],
    };
    // SAFETY: the room is as large as it says.
    unsafe { bpf(BPF_PROG_QUERY, &mut attributes)? };
    programs.count = attributes.count as usize;
    Ok(programs)
}

/// Takes away those that are ours: a service may have put others there. Who is gone already was taken
/// away by another command of the unit.
fn detach(cgroup: BorrowedFd<'_>, hook: Hook, programs: &Programs) -> Result<(), Errno> {
    const BPF_PROG_DETACH: c_int = 9;
    const BPF_PROG_GET_FD_BY_ID: c_int = 13;
    for id in programs.ids.iter().take(programs.count) {
        // SAFETY: prog_id: a number.
        let fd = match unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut [*id]) } {
            Err(Errno::NOENT) => continue,
            fd => fd?,
        };
        // SAFETY: the kernel has just made it, close-on-exec, for nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if name_of(&fd)? != NAME {
            continue;
        }
        let mut numbers = [cgroup.as_raw_fd() as u32, fd.as_raw_fd() as u32, hook.attach_type()];
        // SAFETY: target_fd, attach_bpf_fd, attach_type: numbers only.
        match unsafe { bpf(BPF_PROG_DETACH, &mut numbers) } {
            Err(Errno::NOENT) => {}
            detached => _ = detached?,
        }
    }
    Ok(())
}

/// The name that a program was loaded with.
fn name_of(program: &OwnedFd) -> Result<[u8; 16], Errno> {
    const BPF_OBJ_GET_INFO_BY_FD: c_int = 15;
    /// The beginning of struct bpf_prog_info.
    #[repr(C)]
    struct Information {
        before: [u64; 8],
        name: [u8; 16],
    }
    #[repr(C)]
    struct Attributes {
        program: u32,
        length: u32,
        information: u64,
    }
    let mut information = Information { before: [0; 8], name: [0; 16] };
    let mut attributes = Attributes {
        program: program.as_raw_fd() as u32,
        length: size_of::<Information>() as u32,
        information: &raw mut information as u64,
    };
    // SAFETY: the room is as large as it says, and zero where the kernel would read from it.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)? };
    Ok(information.name)
}
