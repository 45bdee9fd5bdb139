//! Cutting one whole XML answer into pages, as moto does not.

/// The element that holds the items of each action that pages, and the element of an item that names it.
pub(super) fn listing(action: &str) -> Option<(&'static str, &'static str)> {
    match action {
        "DescribeNetworkInterfaces" => Some(("networkInterfaceSet", "networkInterfaceId")),
        "DescribeSecurityGroupRules" => Some(("securityGroupRuleSet", "securityGroupRuleId")),
        "DescribeSecurityGroups" => Some(("securityGroupInfo", "groupId")),
        "DescribeVpcs" => Some(("vpcSet", "vpcId")),
        _ => None,
    }
}

/// One page of an answer: the items after `after`, at most `size`, in the order of their ids. The token is the last
/// id, so that, as with the service, what changes in between is seen by the pages that follow and by no other.
pub(super) fn page(
    body: &str,
    action: &str,
    after: Option<&str>,
    size: usize,
) -> Option<(String, Option<String>)> {
    let (set, id) = listing(action)?;
    let (before, items, behind) = split(body, set)?;
    let mut items: Vec<(&str, &str)> = items
        .into_iter()
        .map(|item| (text_of(item, id).unwrap_or_default(), item))
        .collect();
    items.sort_unstable();
    let mut rest = items
        .into_iter()
        .skip_while(|(name, _)| after.is_some_and(|after| *name <= after))
        .peekable();
    let mut chosen = Vec::new();
    while let (true, Some(item)) = (chosen.len() < size, rest.peek()) {
        chosen.push(*item);
        rest.next();
    }
    let token = rest
        .peek()
        .and_then(|_| chosen.last())
        .map(|(name, _)| (*name).to_owned());
    let content: String = chosen.iter().map(|(_, item)| *item).collect();
    let next = token
        .as_deref()
        .map(|token| format!("<nextToken>{}</nextToken>", hex(token)))
        .unwrap_or_default();
    Some((
        format!("{before}<{set}>{content}</{set}>{next}{behind}"),
        token,
    ))
}

/// The answer without its list.
pub(super) fn without_list(body: &str, action: &str) -> String {
    let parts = listing(action).and_then(|(set, _)| split(body, set));
    parts.map_or_else(
        || body.to_owned(),
        |(before, _, behind)| format!("{before}{behind}"),
    )
}

/// What stands before the set, its items, and what stands behind it.
fn split<'a>(body: &'a str, set: &str) -> Option<(&'a str, Vec<&'a str>, &'a str)> {
    for empty in [format!("<{set}/>"), format!("<{set} />")] {
        if let Some((before, behind)) = body.split_once(&empty) {
            return Some((before, Vec::new(), behind));
        }
    }
    let (before, rest) = body.split_once(&format!("<{set}>"))?;
    let (content, behind) = rest.rsplit_once(&format!("</{set}>"))?;
    Some((before, items(content), behind))
}

/// The items directly in a set. Text is escaped, so a tag in it is a tag.
#[expect(
    clippy::string_slice,
    reason = "every place is before or behind a tag, and tags are ASCII"
)]
fn items(content: &str) -> Vec<&str> {
    let (mut items, mut depth, mut start, mut at) = (Vec::new(), 0_usize, 0, 0);
    while let Some(found) = content[at..].find('<') {
        at += found;
        let rest = &content[at..];
        if rest.starts_with("<item>") {
            if depth == 0 {
                start = at;
            }
            depth += 1;
        } else if rest.starts_with("</item>") {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                items.push(&content[start..at + "</item>".len()]);
            }
        }
        at += 1;
    }
    items
}

/// The answer with prefixes delegated to interfaces in it.
pub(super) fn with_prefixes(body: String, delegated: &[(String, String)]) -> String {
    delegated.iter().fold(body, |body, (interface, prefix)| {
        let id = format!("<networkInterfaceId>{interface}</networkInterfaceId>");
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let item = format!("<item><{family}Prefix>{prefix}</{family}Prefix></item>");
        let set = format!("<{family}PrefixSet>{item}</{family}PrefixSet>");
        body.replace(&id, &format!("{id}{set}"))
    })
}

/// The text of the first element of this name.
pub(super) fn text_of<'a>(xml: &'a str, element: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{element}>"))?;
    rest.split_once(&format!("</{element}>"))
        .map(|(text, _)| text)
}

/// A token says nothing to whoever holds it.
pub(super) fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// What [`hex`] wrote; `None` for a token that is none of ours.
pub(super) fn unhex(token: &str) -> Option<String> {
    let digits = token.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    String::from_utf8(bytes?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "<R><vpcSet><item><vpcId>c</vpcId><tagSet><item>x</item></tagSet></item>\
        <item><vpcId>a</vpcId></item><item><vpcId>b</vpcId></item></vpcSet></R>";

    #[test]
    fn pages_hold_every_item_once() {
        let (mut token, mut seen, mut pages) = (None, Vec::new(), 0);
        loop {
            let (body, next) = page(BODY, "DescribeVpcs", token.as_deref(), 2).unwrap();
            let ids = split(&body, "vpcSet").unwrap().1;
            seen.extend(
                ids.iter()
                    .map(|item| text_of(item, "vpcId").unwrap().to_owned()),
            );
            pages += 1;
            if next.is_none() {
                assert!(!body.contains("nextToken"));
                break;
            }
            assert_eq!(unhex(text_of(&body, "nextToken").unwrap()), next);
            token = next;
        }
        assert_eq!((pages, seen.join("")), (2, "abc".to_owned()));
    }

    #[test]
    fn an_empty_set_is_one_empty_page() {
        let (body, next) = page("<R><vpcSet/></R>", "DescribeVpcs", None, 2).unwrap();
        assert_eq!((body.as_str(), next), ("<R><vpcSet></vpcSet></R>", None));
        assert_eq!(without_list(BODY, "DescribeVpcs"), "<R></R>");
    }
}
