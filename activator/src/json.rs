//! A status as JSON, two spaces deep for each level, as `rouse status --json` prints it.

use crate::control::{InstanceStatus, ServiceStatus, SocketStatus, Status};
use crate::stage2::template::escape;

/// With a newline at the end.
pub(crate) fn status(status: &Status) -> String {
    let mut json = Json { text: String::new(), depth: 0 };
    json.object(|it| {
        it.text("name", &status.name);
        it.text("state", &status.state);
        it.number("started_us", status.started_us);
        it.number("listening_us", status.listening_us);
        it.number("now_us", status.now_us);
        it.number("activator_memory", status.activator_memory);
        it.list("sockets", &status.sockets, |it, one| it.object(|it| socket(it, one)));
        it.list("services", &status.services, |it, one| it.object(|it| service(it, one)));
        it.list("instances", &status.instances, |it, one| it.object(|it| instance(it, one)));
    });
    json.text + "\n"
}

fn socket(it: &mut Json, socket: &SocketStatus) {
    it.text("name", &socket.name);
    it.optional("user", socket.user.as_deref());
    it.list("addresses", &socket.addresses, |it, address| it.string(address));
    it.text("state", &socket.state);
    it.text("service", &socket.service);
    it.number("triggered", socket.triggered);
    it.number("refused", socket.refused);
    it.number("accepted", socket.accepted);
    it.number("connections", u64::from(socket.connections));
}

fn service(it: &mut Json, service: &ServiceStatus) {
    it.text("name", &service.name);
    it.optional("user", service.user.as_deref());
    it.text("state", &service.state);
    it.number("main_pid", service.main_pid.map(u64::from));
    it.number("starts", service.starts);
    it.number("restarts", service.restarts);
    it.number("memory", service.memory);
    it.optional("last_exit", service.last_exit.as_deref());
    it.text("text", &service.text);
    it.optional("health", service.health.as_deref());
}

fn instance(it: &mut Json, instance: &InstanceStatus) {
    it.text("name", &instance.name);
    it.optional("user", instance.user.as_deref());
    it.text("socket", &instance.socket);
    it.text("state", &instance.state);
    it.number("main_pid", instance.main_pid.map(u64::from));
    it.text("peer", &instance.peer);
}

/// Text that grows; a value that another one stands before in the same list or object is told
/// from the first by the end of the text.
struct Json {
    text: String,
    depth: usize,
}

impl Json {
    fn object(&mut self, fields: impl FnOnce(&mut Self)) {
        self.open('{');
        fields(self);
        self.close('{', '}');
    }

    fn list<T>(&mut self, key: &str, values: &[T], each: impl Fn(&mut Self, &T)) {
        self.key(key);
        self.open('[');
        for value in values {
            self.next();
            each(self, value);
        }
        self.close('[', ']');
    }

    fn text(&mut self, key: &str, value: &str) {
        self.optional(key, Some(value));
    }

    fn optional(&mut self, key: &str, value: Option<&str>) {
        self.key(key);
        match value {
            Some(value) => self.string(value),
            None => self.text += "null",
        }
    }

    fn number(&mut self, key: &str, value: impl Into<Option<u64>>) {
        self.key(key);
        match value.into() {
            Some(value) => self.text += &value.to_string(),
            None => self.text += "null",
        }
    }

    fn string(&mut self, value: &str) {
        self.text += "\"";
        self.text += &escape(value);
        self.text += "\"";
    }

    fn key(&mut self, key: &str) {
        self.next();
        self.string(key);
        self.text += ": ";
    }

    /// Begins the line of the next value.
    fn next(&mut self) {
        if !self.text.ends_with(['{', '[']) {
            self.text.push(',');
        }
        self.line();
    }

    fn line(&mut self) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n("  ", self.depth));
    }

    fn open(&mut self, bracket: char) {
        self.text.push(bracket);
        self.depth += 1;
    }

    fn close(&mut self, open: char, close: char) {
        self.depth -= 1;
        if !self.text.ends_with(open) {
            self.line();
        }
        self.text.push(close);
    }
}
