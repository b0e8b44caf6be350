//! What an image says about running it and its `.container` does not: STOPSIGNAL, HEALTHCHECK and
//! VOLUME of a Containerfile. The image is only known when the appliance is built, and the service
//! is compiled by then: so these parts of it are made anew.

use super::{health, preparation, service};
use crate::container::{Container, Volume, VolumeSource, Written};
use crate::finding::Finding;
use crate::oci::{ContainerImage, HealthCheck};
use crate::units::value::signal;
use activator::manifest::Service;

/// Takes over what nobody has said otherwise; gives findings about what the image says.
pub fn inherit(
    container: &mut Container,
    service: &mut Service,
    image: &ContainerImage,
) -> Vec<Finding> {
    let mut findings = vec![];
    if container.stop_signal.is_none()
        && let Some(name) = &image.stop_signal
    {
        match signal::number(name) {
            Ok(number) => {
                service.kill_signal = number;
                container.stop_signal = Some(name.clone());
            }
            Err(_) => findings.push(Finding::warning(
                container.image_span.clone(),
                format!(
                    "image `{}` wants to be stopped by `{name}`, which is no signal",
                    image.reference
                ),
            )),
        }
    }
    match &image.health_check {
        _ if container.health.command.is_some() => {}
        Some(check) => {
            take_over_health(container, check);
            service.health = service::health(container, &mut findings);
        }
        None => health::without(container, &mut findings),
    }
    let new: Vec<&String> =
        image.volumes.iter().filter(|path| !is_mounted(container, path)).collect();
    if !new.is_empty() {
        let volume = |path: &String| Volume {
            source: VolumeSource::Anonymous,
            destination: path.clone(),
            options: vec![],
            span: container.image_span.clone(),
        };
        let new: Vec<Volume> = new.into_iter().map(volume).collect();
        container.volumes.extend(new);
    }
    // Whoever the image says that it runs as.
    if let Some(bundle) = &mut service.container {
        bundle.preparation.volumes = preparation::volumes(container, image);
    }
    findings
}

/// As with Podman, an image's check comes with its own times, whatever the unit says of those.
fn take_over_health(container: &mut Container, check: &HealthCheck) {
    let span = container.image_span.clone();
    let written = |text: String| Some(Written { text, span: span.clone() });
    let time = |ns: u64| written(format!("{ns}ns")).filter(|_| ns > 0);
    let health = &mut container.health;
    health.command = written(serde_json::Value::from(check.test.clone()).to_string());
    health.interval = time(check.interval_ns);
    health.timeout = time(check.timeout_ns);
    health.start_period = time(check.start_period_ns);
    health.retries = written(check.retries.to_string()).filter(|_| check.retries > 0);
}

/// Whether the unit puts something there itself.
fn is_mounted(container: &Container, path: &str) -> bool {
    let same = |other: &str| other.trim_end_matches('/') == path.trim_end_matches('/');
    container.tmpfs.iter().any(|(path, _)| same(path))
        || crate::oci::mounted(container).iter().any(|path| same(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Notify;
    use crate::finding::{Source, Span};
    use crate::tree::Tree;
    use activator::manifest;
    use std::sync::Arc;

    fn image() -> ContainerImage {
        let test = ["CMD", "/check", "now"].map(str::to_owned).to_vec();
        ContainerImage {
            stop_signal: Some("SIGUSR1".into()),
            volumes: vec!["/data".into(), "/cache".into(), "/scratch".into()],
            health_check: Some(HealthCheck {
                test,
                interval_ns: 5_000_000_000,
                retries: 7,
                ..HealthCheck::default()
            }),
            ..ContainerImage::new("image", Tree::plain())
        }
    }

    fn container() -> (Container, Service) {
        let source = Arc::new(Source { path: "a.container".into(), text: String::new() });
        let container = Container::new(Span::file(&source), "a.service", "a", "image");
        let service =
            Service { container: Some(manifest::Container::default()), ..Service::default() };
        (container, service)
    }

    #[test]
    fn an_image_says_what_its_container_does_not() {
        let (mut container, mut service) = container();
        container.volumes.push(Volume {
            source: VolumeSource::Name("mine".into()),
            destination: "/cache/".into(),
            options: vec![],
            span: container.span.clone(),
        });
        container.tmpfs.push(("/scratch".into(), vec![]));
        assert_eq!(inherit(&mut container, &mut service, &image()), []);
        assert_eq!(Ok(service.kill_signal), signal::number("USR1"));
        let health = service.health.unwrap();
        assert!(health.probe.command.arguments.ends_with(&["/check".into(), "now".into()]));
        assert_eq!((health.probe.interval_us, health.probe.timeout_us), (5_000_000, 30_000_000));
        assert_eq!(health.retries, 7);
        let folders = service.container.unwrap().preparation.volumes;
        let paths: Vec<_> = folders.iter().map(|it| (it.path.as_str(), it.fresh)).collect();
        let place = "/var/lib/containers/storage/volumes/mine/_data";
        assert_eq!(paths, [(place, false), ("/run/rouse/volumes/a/data", true)]);
    }

    #[test]
    fn a_check_may_be_the_images_alone() {
        let ask = |change: &dyn Fn(&mut Container), image: &ContainerImage| {
            let (mut container, mut service) = container();
            change(&mut container);
            let findings = inherit(&mut container, &mut service, image);
            (findings, service.health)
        };
        let plain = ContainerImage { health_check: None, ..image() };
        let healthy = |it: &mut Container| it.notify = Notify::Healthy;
        let startup = |it: &mut Container| {
            let span = it.span.clone();
            it.health.startup_command = Some(Written { text: "CMD /up".into(), span });
        };
        let (findings, health) = ask(&healthy, &image());
        assert!(findings.is_empty() && health.unwrap().makes_ready);
        let (findings, health) = ask(&startup, &image());
        let probe = health.unwrap().startup.unwrap().probe;
        assert!(findings.is_empty() && probe.command.arguments.ends_with(&["/up".into()]));
        let message = |change| ask(change, &plain).0[0].message.clone();
        assert!(message(&healthy).starts_with("`Notify=healthy` waits for a health check"));
        assert_eq!(message(&startup), "`HealthStartupCmd=` needs a `HealthCmd=`");
    }

    #[test]
    fn volumes_are_given_to_the_images_user() {
        let (mut container, mut service) = container();
        let volume = |source, options: &[&str]| Volume {
            source,
            destination: "/srv".into(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            span: container.span.clone(),
        };
        let source = VolumeSource::Name("mine".into());
        container.volumes = vec![
            volume(source.clone(), &[]),
            volume(source, &["U"]),
            volume(VolumeSource::Path("/srv/file".into()), &["U"]),
        ];
        let mount = "type=bind,source=/srv/other,destination=/other,U";
        let span = container.span.clone();
        container.mounts = vec![Written { text: mount.into(), span: span.clone() }];
        let image = ContainerImage { user: Some("33:34".into()), volumes: vec![], ..image() };
        let mut owners = |container: &mut Container| {
            inherit(container, &mut service, &image);
            let folders = &service.container.as_ref().unwrap().preparation.volumes;
            let owners: Vec<_> = folders.iter().map(|it| (it.owner, it.give)).collect();
            owners
        };
        let expected = [false, true, true, true];
        assert_eq!(owners(&mut container), expected.map(|give| ((33, 34), give)));
        let map = Written { text: "0:1000:65536".into(), span };
        container.user_namespace.uid_maps = vec![map];
        assert_eq!(owners(&mut container), expected.map(|give| ((1033, 1034), give)));
    }

    #[test]
    fn the_unit_goes_before_the_image() {
        let (mut container, mut service) = container();
        service.kill_signal = 15;
        container.stop_signal = Some("TERM".into());
        let span = container.span.clone();
        container.health.command = Some(Written { text: "none".into(), span });
        inherit(&mut container, &mut service, &image());
        assert_eq!((service.kill_signal, service.health.is_none()), (15, true));
    }
}
