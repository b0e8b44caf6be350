//! `RemoveIPC=`: what the processes of a user have left in System V IPC and POSIX shared memory
//! and message queues.

use super::sys;
use std::io;
use std::os::unix::fs::MetadataExt;

/// Removes all that belongs to the user; what cannot be removed is returned.
pub(super) fn remove(uid: u32) -> Vec<io::Error> {
    let mut troubles = vec![];
    for (kind, file) in [
        (sys::Ipc::SharedMemory, "/proc/sysvipc/shm"),
        (sys::Ipc::Semaphores, "/proc/sysvipc/sem"),
        (sys::Ipc::Messages, "/proc/sysvipc/msg"),
    ] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        for id in owned(&text, uid) {
            troubles.extend(sys::remove_ipc(kind, id).err().map(io::Error::from));
        }
    }
    for directory in ["/dev/shm", "/dev/mqueue"] {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
            if found.uid() == uid {
                let removed = match found.is_dir() {
                    true => std::fs::remove_dir_all(path),
                    false => std::fs::remove_file(path),
                };
                troubles.extend(sys::not_found_is_fine(removed).err());
            }
        }
    }
    troubles
}

/// The ids in a table of /proc/sysvipc that belong to a user: its columns have names.
fn owned(table: &str, uid: u32) -> Vec<i32> {
    let mut lines = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let Some(header) = lines.next() else { return vec![] };
    let column = |name: &str| header.iter().position(|it| *it == name);
    let id = header.iter().position(|it| matches!(*it, "shmid" | "semid" | "msqid"));
    let (Some(id), Some(user)) = (id, column("uid")) else { return vec![] };
    let uid = uid.to_string();
    let of_user = lines.filter(|line| line.get(user).is_some_and(|it| *it == uid));
    of_user.filter_map(|line| line.get(id)?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_by_the_names_of_the_columns() {
        let table = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime\n\
                     0          7   600          1  1000  1000  1000  1000          0\n\
                     0         12   600          1     0     0  1000     0          0\n\
                     0         19   600          1  1000     0     0     0          0\n";
        assert_eq!(owned(table, 1000), [7, 19]);
        assert_eq!(owned(table, 5), Vec::<i32>::new());
        assert_eq!(owned("", 5), Vec::<i32>::new());
    }
}
