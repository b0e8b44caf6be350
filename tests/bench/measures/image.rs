//! Images for the same jobs: rouse's, and Debian with systemd as mmdebstrap and mkosi make it.

use crate::measure::{Bound, Measure};
use crate::props::{Props, Size};
use crate::workshop::{self, EXTRA, OUTPUT, REPOSITORY};
use rouse_tests::{Appliance, Rouse};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;

const ROUSE: &str = "rouse";
pub(crate) const MMDEBSTRAP: &str = "mmdebstrap";
pub(crate) const MKOSI: &str = "mkosi";

/// What an appliance is for.
#[derive(Debug)]
pub(crate) struct Job {
    /// The folder below `configs`.
    config: &'static str,
    /// What Debian with systemd needs for it.
    pub(crate) packages: &'static [&'static str],
}

const JOBS: [Job; 3] = [
    Job { config: "echo", packages: &["systemd-sysv"] },
    Job { config: "httpd", packages: &["systemd-sysv", "lighttpd", "apache2"] },
    Job {
        config: "podman",
        packages: &[
            "systemd-sysv",
            "podman",
            "conmon",
            "crun",
            "catatonit",
            "netavark",
            "aardvark-dns",
            "nftables",
            "golang-github-containers-common",
            "golang-github-containers-image",
        ],
    },
];

/// What dpkg leaves out, as rouse does.
const LEFT_OUT: [&str; 5] = ["doc", "man", "locale", "info", "groff"];

/// Sizes of all jobs.
pub(crate) fn run(props: &Props) -> Vec<Measure> {
    let how = "Kernel and its modules left out; a cpio or tar archive under zstd as rouse compresses it, \
               or rouse's disk. Of the peers: Debian with systemd-sysv and the job's packages \
               without what they recommend, documentation and translations; for echo a plain static \
               server, without a container.";
    let mut measures: Vec<Measure> = JOBS
        .iter()
        .map(|job| {
            let id = format!("image-{}", job.config);
            let title = format!("Size of an image: {}", job.config);
            let smaller = Bound::AtLeast(1.0);
            Measure::new(&id, &title, "MiB", how)
                .floor(ROUSE)
                .goal(MMDEBSTRAP, ROUSE, smaller)
                .goal(MKOSI, ROUSE, smaller)
        })
        .collect();
    if props.size == Size::Smoke {
        for measure in &mut measures {
            measure.leave_out("all", "an image is not part of so short a run");
        }
        return measures;
    }
    let shop = Shop::open(props);
    for (job, measure) in JOBS.iter().zip(&mut measures) {
        eprintln!("image: {}", job.config);
        measure.add(ROUSE, own(job));
        for (name, make) in [(MMDEBSTRAP, Shop::mmdebstrap as Make), (MKOSI, Shop::mkosi)] {
            let made = shop.as_ref().map_err(Clone::clone).and_then(|shop| {
                shop.fresh();
                make(shop, props, job)?;
                Ok(compressed(&shop.output.join("root.tar")))
            });
            match made {
                Ok(bytes) => measure.add(name, bytes / f64::from(1 << 20)),
                Err(why) => measure.leave_out(name, &why),
            }
        }
    }
    measures
}

type Make = fn(&Shop, &Props, &Job) -> Result<(), String>;

/// Adds what the peers need for the echo job to the times of `rouse build`.
pub(crate) fn time(props: &Props, rounds: usize, build: &mut Measure) {
    let shop = match Shop::open(props) {
        Ok(shop) => shop,
        Err(why) => {
            for name in [MMDEBSTRAP, MKOSI] {
                build.leave_out(name, &why);
            }
            return;
        }
    };
    let job = &JOBS[0];
    for round in 0..rounds {
        eprintln!("build: {MMDEBSTRAP} and {MKOSI}, round {} of {rounds}", round + 1);
        for (name, make, fresh) in [
            (MMDEBSTRAP, Shop::mmdebstrap as Make, true),
            (MKOSI, Shop::mkosi, true),
            ("mkosi, incremental", Shop::mkosi, false),
        ] {
            if fresh {
                shop.fresh();
            }
            let begun = Instant::now();
            match make(&shop, props, job) {
                Ok(()) => build.add(name, begun.elapsed().as_secs_f64() * 1e3),
                Err(why) => build.leave_out(name, &why),
            }
        }
    }
}

/// MiB of rouse's.
fn own(job: &Job) -> f64 {
    let appliance = Appliance::of_config(job.config);
    let output = Rouse::new().run(["build".as_ref(), appliance.path().as_os_str()]).success();
    let folder = PathBuf::from(output.text().trim_end());
    let initramfs = super::boot::without_modules(&folder.join(rouse::output::INITRAMFS));
    let disk = std::fs::metadata(folder.join(rouse::output::ROOT)).map_or(0, |disk| disk.len());
    (initramfs as f64 + disk as f64) / f64::from(1 << 20)
}

/// zstd's, as rouse chooses it.
pub(super) fn level(size: u64) -> i32 {
    match size > rouse::output::LARGE {
        true => rouse::output::LEVEL_OF_LARGE,
        false => rouse::output::LEVEL,
    }
}

/// Bytes of an archive under zstd.
fn compressed(archive: &Path) -> f64 {
    struct Count(u64);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let size = std::fs::metadata(archive).unwrap().len();
    let mut zstd = zstd::Encoder::new(Count(0), level(size)).unwrap();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    zstd.multithread(u32::try_from(threads).unwrap_or(1)).unwrap();
    let mut archive = std::fs::File::open(archive).unwrap();
    std::io::copy(&mut archive, &mut zstd).unwrap();
    zstd.finish().unwrap().0 as f64
}

/// The peers' workshop.
struct Shop {
    repository: PathBuf,
    /// The echo job's files: the same server and sockets as in the boots.
    extra: PathBuf,
    output: PathBuf,
}

impl Shop {
    fn open(props: &Props) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("a root of its own needs root".into());
        }
        let folder = props.folder.join("workshop");
        let [extra, output] = ["extra", "output"].map(|name| folder.join(name));
        let repository = match folder.join("repository") {
            made if made.exists() => made,
            _ => workshop::repository(&folder, &JOBS)?,
        };
        let units = extra.join("etc/systemd/system");
        let wants = units.join("sockets.target.wants");
        let _ = std::fs::remove_dir_all(&extra);
        for folder in [&wants, &extra.join("usr/bin"), &output] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::copy(props.folder.join("bin/service"), extra.join("usr/bin/service")).unwrap();
        for (name, text) in super::boot::sockets() {
            std::fs::write(units.join(&name), text).unwrap();
            if name.ends_with(".socket") {
                symlink(format!("../{name}"), wants.join(name)).unwrap();
            }
        }
        Ok(Self { repository, extra, output })
    }

    /// Takes away what was made before.
    fn fresh(&self) {
        std::fs::remove_dir_all(&self.output).unwrap();
        std::fs::create_dir(&self.output).unwrap();
    }

    fn run(&self, props: &Props, tree: &str, words: &[&str]) -> Result<(), String> {
        let tree = props.tree(tree)?.ok_or("it has no packages")?;
        workshop::run(tree, [&self.repository, &self.extra, &self.output], words)
    }

    fn mmdebstrap(&self, props: &Props, job: &Job) -> Result<(), String> {
        let include = format!("--include={}", job.packages.join(","));
        let left_out = LEFT_OUT.map(|it| format!("--dpkgopt=path-exclude=/usr/share/{it}/*"));
        let hook = format!("--customize-hook=cp -a {EXTRA}/. \"$1\"");
        let source = format!("deb [trusted=yes] copy:{REPOSITORY} trixie main");
        let output = format!("{OUTPUT}/root.tar");
        let mut words = vec!["/usr/bin/mmdebstrap", "--mode=root", "--variant=apt", &include];
        words.extend(left_out.iter().map(String::as_str));
        words.extend([hook.as_str(), "trixie", &output, &source]);
        self.run(props, MMDEBSTRAP, &words)
    }

    fn mkosi(&self, props: &Props, job: &Job) -> Result<(), String> {
        let mut words: Vec<String> = [
            "/usr/bin/mkosi",
            "--force",
            "--incremental=yes",
            "--distribution=debian",
            "--release=trixie",
            "--format=tar",
            "--compress-output=no",
            "--bootable=no",
            "--with-docs=no",
            "--with-recommends=no",
            "--output=root",
            "--build-sources=",
        ]
        .map(String::from)
        .into();
        words.push(format!("--local-mirror=file://{REPOSITORY}"));
        words.push(format!("--output-directory={OUTPUT}"));
        words.push(format!("--cache-directory={OUTPUT}/cache"));
        words.push(format!("--extra-tree={EXTRA}"));
        words.extend(LEFT_OUT.map(|it| format!("--remove-files=/usr/share/{it}/*")));
        words.extend(job.packages.iter().map(|package| format!("--package={package}")));
        words.push("build".into());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.run(props, MKOSI, &words)
    }
}
