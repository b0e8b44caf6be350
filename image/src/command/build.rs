//! The verbs that make something: lock, build, inspect.

use super::guest::{print, print_json};
use crate::appliance::Appliance;
use crate::build;
use crate::command_line::{Arch, Build, Inspect, Lock};
use crate::debian::Debian;
use crate::exit::{BAD_INPUT, FAILED, Failure, TRY_AGAIN};
use crate::lock;
use crate::output::description::Description;
use crate::output::{INITRAMFS, KERNEL, MANIFEST, ROOT};
use crate::terminal;
use clap::ValueEnum;
use std::path::Path;

/// Files that `inspect` lists.
const LARGEST: usize = 20;

/// `rouse lock`
pub fn lock(arguments: &Lock) -> Result<(), Failure> {
    let appliance = Appliance::open(&arguments.appliance)?;
    let debian = build::debian(&appliance, &build::cache()?);
    if let Some(arch) = arguments.arch {
        return lock_one(&appliance, &debian, arch);
    }
    let host = Arch::host().ok();
    let mut both = Arch::value_variants().to_vec();
    both.sort_by_key(|arch| Some(*arch) != host);
    for arch in both {
        match (lock_one(&appliance, &debian, arch), host) {
            (Ok(()), _) => {}
            // Some images are made for one machine, as those of containers-storage are.
            (Err(failure), Some(host)) if arch != host && failure.code() != TRY_AGAIN => {
                let (arch, host) = (arch.as_str(), host.as_str());
                terminal::warn(format!("{arch} is not locked: {}", failure.reason()));
                terminal::hint(format!("`--arch {host}` locks nothing but {host}"));
            }
            (Err(failure), _) => return Err(failure),
        }
    }
    Ok(())
}

/// Locks an appliance for one architecture, and prints what has changed.
fn lock_one(appliance: &Appliance, debian: &Debian, arch: Arch) -> Result<(), Failure> {
    // A lock that cannot be read is what this replaces.
    let old = lock::Lock::read(&appliance.folder.join(lock::FILE)).ok().flatten();
    let before = old.as_ref().and_then(|lock| lock.section(arch.debian()).cloned());
    let section = build::resolve(appliance, debian, arch, old, build::Keep::MustWrite)?;
    let changes = before.map_or_else(Vec::new, |before| section.changes_since(&before));
    for change in &changes {
        print(&format!("{}: {change}\n", arch.as_str()))?;
    }
    Ok(())
}

/// `rouse build`
pub fn build(arguments: &Build) -> Result<(), Failure> {
    let mut appliance = Appliance::open(&arguments.appliance)?;
    let arch = Arch::or_host(arguments.arch)?;
    if let Some(format) = arguments.format {
        appliance.config.root.format = format;
    }
    let built = build::build(&appliance, arch, arguments.output.as_deref())?;
    if arguments.check_reproducible {
        let scratch = tempfile::tempdir()
            .map_err(|error| Failure::new(FAILED, "make a temporary folder").because(error))?;
        let again = build::build(&appliance, arch, Some(&scratch.path().join("again")))?;
        compare(&built.folder, &again.folder)?;
    }
    print(&format!("{}\n", built.folder.display()))
}

fn compare(one: &Path, other: &Path) -> Result<(), Failure> {
    let disk = one.join(ROOT).exists() || other.join(ROOT).exists();
    for name in [KERNEL, INITRAMFS, MANIFEST].into_iter().chain(disk.then_some(ROOT)) {
        let read = |folder: &Path| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(|error| {
                Failure::new(FAILED, format!("read {}", path.display())).because(error)
            })
        };
        if read(one)? != read(other)? {
            return Err(Failure::new(FAILED, format!("build the same {name} twice")));
        }
    }
    Ok(())
}

/// `rouse inspect`
pub fn inspect(arguments: &Inspect) -> Result<(), Failure> {
    let shown = arguments.image.display();
    let image = Description::read(&arguments.image).ok_or_else(|| {
        Failure::new(BAD_INPUT, format!("find an image in {shown}"))
            .hint("`rouse build DIR` prints the folder it wrote")
    })?;
    if arguments.json {
        return print_json(&image);
    }
    let mebibytes = |bytes: u64| format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20));
    let mut text = format!("{} for {}\n", image.name, image.architecture);
    text += &format!("  kernel     {:>10}\n", mebibytes(image.kernel.size));
    text += &format!(
        "  initramfs  {:>10}, {} unpacked\n",
        mebibytes(image.initramfs.size),
        mebibytes(image.initramfs_raw_size)
    );
    if let Some(root) = &image.root {
        text += &format!("  root       {:>10}, a read-only disk\n", mebibytes(root.size));
    }
    let left_out = image.left_out;
    if left_out.files > 0 {
        text += &format!(
            "  left out   {:>10}, {} files of documentation (`[root] docs = true` keeps them)\n",
            mebibytes(left_out.size),
            left_out.files
        );
    }
    text += "packages\n";
    for package in &image.packages {
        text += &format!("  {package}\n");
    }
    if !image.images.is_empty() {
        text += "container images\n";
    }
    for (reference, folder) in &image.images {
        let below = format!("{folder}/");
        let own = image.files.iter().filter(|file| file.path.starts_with(&below));
        let size = own.map(|file| file.size).sum();
        text += &format!("  {:>10}  {reference}\n", mebibytes(size));
        if let Some(source) = image.image_sources.get(reference) {
            text += &format!("              {source}\n");
        }
    }
    text += "largest files\n";
    let mut files: Vec<_> = image.files.iter().collect();
    files.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)));
    for file in files.iter().take(LARGEST) {
        text += &format!("  {:>10}  {} ({})\n", mebibytes(file.size), file.path, file.origin);
    }
    print(&text)
}
