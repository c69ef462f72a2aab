//! Hosts and ports, as people write them.

/// A host name or address, as far as that can be told without asking anybody.
///
/// # Errors
/// Why it is none, and what to write.
pub fn check_host(text: &str) -> Result<String, String> {
    let wrong = |why: &str| {
        Err(format!(
            "\"{text}\" is not an address or host name: {why}; write for example 9.9.9.9"
        ))
    };
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    if text.is_empty() || text.len() > 253 {
        return wrong("too short or too long");
    }
    if text.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return wrong("not four numbers of 0 to 255");
    }
    if let Some((ip, _)) = text.split_once('%')
        && ip.parse::<std::net::Ipv6Addr>().is_ok()
    {
        return Err(format!(
            "\"{text}\" names an interface; write {ip}, which is reached through each that is probed from"
        ));
    }
    if text.contains(':') {
        return wrong("not a valid IPv6 address");
    }
    if !text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
    {
        return wrong("a character that names cannot have");
    }
    Ok(text.to_owned())
}

/// Host and port of `host`, `host:port`, `[v6]:port` or a bare IPv6 address; `default` where it has no port.
///
/// # Errors
/// Where the port is none, or it is a URL.
pub fn split_port(text: &str, default: u16) -> Result<(&str, u16), String> {
    if text.contains("://") {
        return Err(format!(
            "\"{text}\" is a URL, and no host name or address; write for example reflector.example.net"
        ));
    }
    let port = |p: &str| {
        p.parse::<u16>()
            .ok()
            .filter(|p| *p > 0)
            .ok_or_else(|| format!("\"{p}\" is not a port; 1 to 65535 is allowed"))
    };
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        return match rest.strip_prefix(':') {
            Some(p) => Ok((host, port(p)?)),
            None if rest.is_empty() => Ok((host, default)),
            None => Err(format!(
                "\"{rest}\" after the bracket is not a port; write [{host}]:443"
            )),
        };
    }
    match text.split_once(':') {
        Some((host, p)) if !p.contains(':') => Ok((host, port(p)?)),
        _ => Ok((text, default)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_with_and_without_ports() {
        for (text, host, port) in [
            ("a.example:5", "a.example", 5),
            ("2001:db8::1", "2001:db8::1", 9876),
            ("[2001:db8::1]:7", "2001:db8::1", 7),
            ("[2001:db8::1]", "2001:db8::1", 9876),
        ] {
            assert_eq!(split_port(text, 9876), Ok((host, port)));
        }
        for (wrong, why) in [
            ("h:99999", "is not a port"),
            ("h:0", "is not a port"),
            ("http://h", "is a URL"),
            ("http://h:9876", "is a URL"),
        ] {
            let said = split_port(wrong, 9876).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
