//! Names of a server's tools that every model provider takes: `<server>__<tool>`.

use std::collections::BTreeMap;

use holdfast_shared::domain::tool::NAME_CHARS;

/// A server's name as its tools' names begin with it: no `__` in it and no `_` at its ends, so that the names of two
/// servers' tools are never the same.
pub(super) fn prefix(server: &str) -> String {
    let is_kept = |character: char| character.is_ascii_alphanumeric() || character == '-';
    server.split(|character| !is_kept(character)).filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_")
}

/// A name for each tool, in the order given. A name that had to be changed so much that another tool has it too, or that
/// had to be cut, gets an ending made from what it was.
pub(super) fn of_tools(prefix: &str, tools: &[&str]) -> Vec<String> {
    let cleaned: Vec<_> = tools.iter().map(|tool| format!("{prefix}__{}", clean(tool))).collect();
    let mut uses = BTreeMap::<&str, usize>::new();
    for name in &cleaned {
        *uses.entry(name).or_default() += 1;
    }
    let name = |(tool, cleaned): (&&str, &String)| {
        let is_doubtful = uses[cleaned.as_str()] > 1 && clean(tool) != **tool;
        if is_doubtful || cleaned.len() > NAME_CHARS {
            let ending = format!("_{:08x}", fingerprint(tool));
            let room = NAME_CHARS - ending.len();
            format!("{}{ending}", &cleaned[..cleaned.len().min(room)])
        } else {
            cleaned.clone()
        }
    };
    tools.iter().zip(&cleaned).map(name).collect()
}

fn clean(tool: &str) -> String {
    let is_kept = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
    tool.chars().map(|character| if is_kept(character) { character } else { '_' }).collect()
}

/// The same for the same text, today and in other versions: 32-bit FNV-1a.
fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use holdfast_shared::domain::tool::is_name;

    use super::*;

    #[test]
    fn prefixes_are_unambiguous() {
        for (server, expected) in [
            ("files", "files"),
            ("My Search!", "My_Search"),
            ("__a__b__", "a_b"),
            ("@x/y-z", "x_y-z"),
            ("ü", ""),
            ("", ""),
        ] {
            assert_eq!(prefix(server), expected, "{server}");
        }
    }

    #[test]
    fn names_are_clean_short_and_different() {
        let long = "x".repeat(100);
        let longer = "x".repeat(101);
        let tools = ["echo", "get:thing", "get.thing", "get_thing", "ünïcode", "", long.as_str(), longer.as_str()];
        let names = of_tools("srv", &tools);
        assert_eq!(names[0], "srv__echo");
        assert_eq!(names[3], "srv__get_thing", "who has the name by right keeps it");
        assert_eq!(names[4], "srv___n_code");
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), tools.len(), "{names:?}");
        assert!(names.iter().all(|name| is_name(name)), "{names:?}");
        assert_eq!(of_tools("srv", &[&long]), [names[6].clone()], "a name does not depend on its neighbours");
    }

    #[test]
    fn fingerprints_stay() {
        assert_eq!(fingerprint(""), 0x811c_9dc5);
        assert_eq!(fingerprint("a"), 0xe40c_292c);
        assert_eq!(fingerprint("foobar"), 0xbf9c_f968);
    }
}
