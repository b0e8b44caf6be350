//! The initramfs of an image whose files are on a disk: PID 1, what it takes to mount the
//! disk, and a manifest that says so.

use crate::base;
use crate::config::{Config, disk};
use crate::kernel::Kernel;
use crate::tree::{Node, Tree, TreeError};
use activator::manifest::{self, Boot, Manifest, Module};

/// Kernel modules for a disk, and for the file system of the root.
pub(super) const MODULES: [&str; 2] = ["virtio_blk", "erofs"];
/// The module for a disk alone.
pub(super) const DISK_MODULE: &str = "virtio_blk";
/// Kind of the root's file system.
const KIND: &str = "erofs";
/// Who brings these files.
const ORIGIN: &str = "rouse";

/// The root's device: it comes after the disk that keeps what is written, if there is one.
pub(super) fn device(config: &Config) -> &'static str {
    if config.disk.is_some() { "/dev/vdb" } else { disk::DEVICE }
}

/// The tree. `kernel` has [`MODULES`]; `device` is the disk's.
pub(super) fn tree(init: &[u8], kernel: &Kernel, device: &str) -> Result<Tree, TreeError> {
    let mut tree = Tree::new();
    for folder in ["/dev", "/sysroot"] {
        tree.make_directory(folder, 0o755, ORIGIN)?;
    }
    tree.insert("/init", Node::file(init, 0o755, ORIGIN))?;
    let mut modules = Vec::new();
    for module in &kernel.modules {
        let path = format!("/{}", module.path.display());
        tree.insert(&path, Node::file(module.bytes.as_slice(), 0o644, ORIGIN))?;
        modules.push(Module { path, parameters: String::new(), required: true });
    }
    let root = manifest::Root { device: device.into(), kind: KIND.into(), init: base::INIT.into() };
    let boot = Boot { modules, root: Some(root), ..Boot::default() };
    let manifest = Manifest { name: "initramfs".into(), boot, ..Manifest::default() };
    tree.insert(manifest::PATH, Node::file(manifest.encode(), 0o644, ORIGIN))?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::KernelModule;

    #[test]
    fn the_initramfs_knows_where_the_root_is() {
        let module = KernelModule {
            name: "erofs".into(),
            path: "usr/lib/modules/6/erofs.ko".into(),
            bytes: b"\x7fELF".to_vec(),
        };
        let kernel = Kernel { release: "6".into(), image: vec![], modules: vec![module] };
        let tree = tree(b"PID 1", &kernel, "/dev/vdb").unwrap();
        assert_eq!(tree.content("/init").unwrap().as_ref(), b"PID 1");
        let manifest = Manifest::decode(tree.content(manifest::PATH).unwrap()).unwrap();
        let root = manifest.boot.root.unwrap();
        assert_eq!((&*root.device, &*root.kind), ("/dev/vdb", "erofs"));
        let module = &manifest.boot.modules[0];
        assert!(module.required && tree.content(&module.path).is_some());
    }
}
