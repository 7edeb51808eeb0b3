//! Users and groups of the system, by number or by the name that the files of the system give them. A service of names
//! beyond these files (a directory server, say) is not asked.

use std::fs;
use std::io;
use std::path::Path;

/// A user, as it was named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemUser(pub String);

/// A group, as it was named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemGroup(pub String);

impl SystemUser {
    /// Its number.
    pub(super) fn id(&self) -> io::Result<u32> {
        id(&self.0, "user", Path::new("/etc/passwd"))
    }
}

impl SystemGroup {
    /// Its number.
    pub(super) fn id(&self) -> io::Result<u32> {
        id(&self.0, "group", Path::new("/etc/group"))
    }
}

fn id(name: &str, what: &str, file: &Path) -> io::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = fs::read(file).map_err(|error| {
        io::Error::new(error.kind(), format!("{} cannot be read: {error}", file.display()))
    })?;
    find(&String::from_utf8_lossy(&text), name).ok_or_else(|| {
        let message =
            format!("there is no {what} {name:?} in {}; name one that is, or its number", file.display());
        io::Error::new(io::ErrorKind::NotFound, message)
    })
}

/// The number in `name:x:NUMBER:..`, the form of both files.
fn find(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found_and_nothing_else() {
        let file =
            "# a comment\nroot:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:\nbroken\nodd:x:-1:\n";
        assert_eq!((find(file, "root"), find(file, "www-data")), (Some(0), Some(33)));
        for name in ["www", "broken", "odd", "x", "", "root:x"] {
            assert_eq!(find(file, name), None, "{name}");
        }
        assert_eq!(SystemUser("root".into()).id().unwrap(), 0);
        assert_eq!(SystemGroup("4711".into()).id().unwrap(), 4711);
        let error = SystemGroup("no-such-group".into()).id().unwrap_err().to_string();
        assert!(error.contains("no-such-group") && error.contains("/etc/group"), "{error}");
    }
}
