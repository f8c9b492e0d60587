use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn class(guard: &Guard, address: &str) -> &'static str {
    guard.check(ip(address)).map_or_else(|refusal| refusal.class.as_str(), |()| "allowed")
}

#[test]
fn t12_every_address_has_its_class() {
    let guard = Guard::tenant(vec![], None);
    let table = [
        // Ordinary public addresses, close to the edges of special ranges.
        ("8.8.8.8", "allowed"),
        ("1.0.0.0", "allowed"),
        ("9.255.255.255", "allowed"),
        ("11.0.0.0", "allowed"),
        ("100.63.255.255", "allowed"),
        ("100.128.0.0", "allowed"),
        ("126.255.255.255", "allowed"),
        ("128.0.0.0", "allowed"),
        ("168.63.129.15", "allowed"),
        ("169.253.255.255", "allowed"),
        ("169.255.0.0", "allowed"),
        ("172.15.255.255", "allowed"),
        ("172.32.0.0", "allowed"),
        ("192.0.1.0", "allowed"),
        ("192.167.255.255", "allowed"),
        ("192.169.0.0", "allowed"),
        ("198.17.255.255", "allowed"),
        ("198.20.0.0", "allowed"),
        ("223.255.255.255", "allowed"),
        ("2606:4700::1111", "allowed"),
        ("2a00:1450:4001:829::200e", "allowed"),
        ("2001:200::1", "allowed"),
        ("2001:4860:4860::8888", "allowed"),
        ("3ffe:ffff::1", "allowed"),
        // IPv4.
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("10.0.0.0", "private"),
        ("10.255.255.255", "private"),
        ("100.64.0.0", "cgnat"),
        ("100.127.255.255", "cgnat"),
        ("100.100.100.200", "metadata"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("168.63.129.16", "metadata"),
        ("169.254.0.1", "link_local"),
        ("169.254.169.254", "metadata"),
        ("169.254.170.2", "metadata"),
        ("169.254.170.23", "metadata"),
        ("172.16.0.0", "private"),
        ("172.31.255.255", "private"),
        ("192.0.0.1", "reserved"),
        ("192.0.0.192", "metadata"),
        ("192.0.2.1", "documentation"),
        ("192.88.99.1", "reserved"),
        ("192.168.0.1", "private"),
        ("192.168.255.255", "private"),
        ("198.18.0.1", "benchmarking"),
        ("198.19.255.255", "benchmarking"),
        ("198.51.100.1", "documentation"),
        ("203.0.113.1", "documentation"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.254", "reserved"),
        ("255.255.255.255", "broadcast"),
        // IPv6.
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("100::1", "reserved"),
        ("64:ff9b:1::808:808", "local_translation"),
        ("2001:1::1", "reserved"),
        ("2001:2::1", "benchmarking"),
        ("2001:2:1::1", "reserved"),
        ("2001:10::1", "reserved"),
        ("2001:1ff:ffff::1", "reserved"),
        ("2001:db8::1", "documentation"),
        ("3fff:fff::1", "documentation"),
        ("4000::1", "reserved"),
        ("5f00::1", "reserved"),
        ("fc00::1", "unique_local"),
        ("fdff:ffff::1", "unique_local"),
        ("fd00:ec2::254", "metadata"),
        ("fd00:ec2::23", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("fd00:42::42", "metadata"),
        ("fe80::1", "link_local"),
        ("febf:ffff::1", "link_local"),
        ("fe80::a9fe:a9fe", "metadata"),
        ("fec0::1", "site_local"),
        ("ff02::1", "multicast"),
        ("fe00::1", "reserved"),
        // IPv4 inside IPv6: mapped, compatible, translated, NAT64, 6to4, Teredo (server and inverted client).
        ("::ffff:8.8.8.8", "allowed"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "metadata"),
        ("::8.8.8.8", "allowed"),
        ("::10.0.0.1", "private"),
        ("::2", "unspecified"),
        ("::ffff:0:8.8.8.8", "allowed"),
        ("::ffff:0:192.168.0.1", "private"),
        ("64:ff9b::8.8.8.8", "allowed"),
        ("64:ff9b::169.254.169.254", "metadata"),
        ("64:ff9b::127.0.0.1", "loopback"),
        ("2002:808:808::1", "allowed"),
        ("2002:7f00:1::1", "loopback"),
        ("2002:a9fe:a9fe::", "metadata"),
        ("2002:c0a8:1::", "private"),
        ("2001:0:808:808:0:0:f7f7:f7f7", "allowed"),
        ("2001:0:808:808:0:0:f5ff:fffe", "private"),
        ("2001:0:a00:1:0:0:f7f7:f7f7", "private"),
        ("2001:0:808:808:0:0:5601:5601", "metadata"),
    ];
    for (address, expected) in table {
        assert_eq!((address, class(&guard, address)), (address, expected));
    }
}

#[test]
fn t12_the_operators_guard_knows_no_classes() {
    let guard = Guard::operator();
    for address in
        ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "fd00:ec2::254", "64:ff9b::7f00:1", "8.8.8.8"]
    {
        assert_eq!(guard.check(ip(address)), Ok(()), "{address}");
    }
}

#[test]
fn t12_an_allowed_range_opens_what_it_names_and_nothing_beside_it() {
    let guard = Guard::tenant(nets(&["10.1.0.0/16", "127.0.0.2/32", "fd12::/16", "172.16.0.0/12"]), None);
    for (address, expected) in [
        ("10.1.2.3", "allowed"),
        ("::ffff:10.1.2.3", "allowed"),
        ("10.2.0.1", "private"),
        ("127.0.0.2", "allowed"),
        ("127.0.0.1", "loopback"),
        ("fd12::1", "allowed"),
        ("fd13::1", "unique_local"),
        ("172.31.0.1", "allowed"),
        ("192.168.0.1", "private"),
        // A gateway would send these on to an address that is allowed here; what is named is named as it is dialled.
        ("64:ff9b::10.1.2.3", "private"),
        ("2002:a01:203::", "private"),
    ] {
        assert_eq!((address, class(&guard, address)), (address, expected));
    }
}

#[test]
fn t12_a_range_wider_than_the_class_does_not_name_it() {
    let everything = nets(&["0.0.0.0/0", "::/0"]);
    for guard in [Guard::tenant(everything.clone(), None), Guard::tenant(vec![], None)] {
        for (address, expected) in [
            ("8.8.8.8", None),
            ("169.254.169.254", Some(AddressClass::Metadata)),
            ("127.0.0.1", Some(AddressClass::Loopback)),
            ("10.0.0.1", Some(AddressClass::Private)),
            ("::1", Some(AddressClass::Loopback)),
            ("64:ff9b::127.0.0.1", Some(AddressClass::Loopback)),
        ] {
            let checked = guard.check_with(ip(address), &everything).map_err(|refusal| refusal.class).err();
            assert_eq!((address, checked), (address, expected));
        }
    }
    // The metadata service lies within link-local addresses and has to be named by itself.
    let link_local = Guard::tenant(nets(&["169.254.0.0/16", "fe80::/10"]), None);
    assert_eq!(class(&link_local, "169.254.1.1"), "allowed");
    assert_eq!(class(&link_local, "fe80::1"), "allowed");
    assert_eq!(class(&link_local, "169.254.169.254"), "metadata");
    assert_eq!(class(&Guard::tenant(nets(&["169.254.169.254/32"]), None), "169.254.169.254"), "allowed");
    assert_eq!(class(&Guard::tenant(nets(&["fd00:ec2::254/128"]), None), "fd00:ec2::254"), "allowed");
}

#[test]
fn t12_a_translated_range_is_opened_by_its_translated_form() {
    let guard = Guard::tenant(nets(&["64:ff9b::10.0.0.0/104", "2002:c0a8::/32"]), None);
    assert_eq!(class(&guard, "64:ff9b::10.9.9.9"), "allowed");
    assert_eq!(class(&guard, "2002:c0a8:101::1"), "allowed");
    assert_eq!(class(&guard, "64:ff9b::169.254.169.254"), "metadata");
    assert_eq!(class(&guard, "10.9.9.9"), "private");
    assert_eq!(class(&Guard::tenant(nets(&["64:ff9b::/96"]), None), "64:ff9b::10.9.9.9"), "private");
    assert_eq!(class(&Guard::tenant(nets(&["64:ff9b:1::/48"]), None), "64:ff9b:1::10.9.9.9"), "allowed");
}

#[test]
fn t12_ranges_of_mapped_addresses_are_ranges_of_ipv4() {
    let guard = Guard::tenant(nets(&["::ffff:10.0.0.0/104"]), Some(nets(&["::ffff:8.8.8.0/120"])));
    for (address, expected) in [
        ("10.1.2.3", "allowed"),
        ("::ffff:10.1.2.3", "allowed"),
        ("8.8.8.8", "denied"),
        ("::ffff:8.8.8.8", "denied"),
        ("8.8.4.4", "allowed"),
    ] {
        assert_eq!((address, class(&guard, address)), (address, expected));
    }
}

#[test]
fn t12_a_rules_own_range_counts_for_its_request_only() {
    let guard = Guard::tenant(vec![], None);
    assert_eq!(guard.check_with(ip("10.0.0.1"), &nets(&["10.0.0.0/24"])), Ok(()));
    assert_eq!(guard.check_with(ip("::ffff:10.0.0.1"), &nets(&["::ffff:10.0.0.0/120"])), Ok(()));
    let denied = AddressDenied { address: ip("10.0.0.1"), class: AddressClass::Private };
    assert_eq!(guard.check_with(ip("10.0.0.1"), &nets(&["10.0.1.0/24"])), Err(denied));
    assert_eq!(guard.check(ip("10.0.0.1")), Err(denied));
}

#[test]
fn t17_a_denied_range_beats_every_allowed_one() {
    let guard =
        Guard::tenant(nets(&["10.0.0.0/8"]), Some(nets(&["10.6.0.0/16", "1.1.1.1/32", "2606:4700::/32"])));
    for (address, expected) in [
        ("10.5.0.1", "allowed"),
        ("10.6.0.1", "denied"),
        ("1.1.1.1", "denied"),
        ("::ffff:1.1.1.1", "denied"),
        ("64:ff9b::1.1.1.1", "denied"),
        ("2002:101:101::", "denied"),
        ("2606:4700::1111", "denied"),
        ("1.0.0.1", "allowed"),
        ("127.0.0.1", "loopback"),
    ] {
        assert_eq!((address, class(&guard, address)), (address, expected));
    }
    let refusal = guard.check_with(ip("10.6.0.1"), &nets(&["10.6.0.0/16"]));
    assert_eq!(refusal, Err(AddressDenied { address: ip("10.6.0.1"), class: AddressClass::Denied }));
}

#[test]
fn an_explicitly_empty_deny_list_removes_the_classes() {
    let guard = Guard::tenant(vec![], Some(vec![]));
    for address in ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "64:ff9b::7f00:1", "240.0.0.1"] {
        assert_eq!(class(&guard, address), "allowed", "{address}");
    }
}

#[test]
fn a_refusal_says_what_the_address_is_and_what_to_do() {
    let refusal = |address| Guard::tenant(vec![], None).check(ip(address)).unwrap_err().to_string();
    assert_eq!(
        refusal("::ffff:10.0.0.1"),
        "10.0.0.1 is a private address (RFC 1918)\nhint: to reach it, name its network in `upstream_allow_cidrs` or in \
         a rule's `cidr`, no wider than the special range it lies in"
    );
    assert_eq!(
        refusal("169.254.169.254"),
        "169.254.169.254 is a cloud metadata service\nhint: to reach it all the same, name this very address in \
         `upstream_allow_cidrs` or in a rule's `cidr`"
    );
}

fn v6(groups: [u16; 8]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(groups))
}

proptest! {
    #[test]
    fn t12_no_ipv6_form_of_an_ipv4_address_gets_through_where_the_address_does_not(
        // Half of all draws out of special ranges, which a uniform draw would rarely hit.
        bits in prop_oneof![
            any::<u32>(),
            (0..V4_CLASSES.len(), any::<u32>()).prop_map(|(row, noise)| {
                let net = V4_CLASSES[row].0;
                net.network().to_bits() | noise & net.hostmask().to_bits()
            }),
        ],
        noise in any::<u64>(),
    ) {
        let guard = Guard::tenant(vec![], None);
        let v4 = Ipv4Addr::from_bits(bits);
        let [high, low] = [(bits >> 16) as u16, bits as u16];
        let [n1, n2, n3, n4] = [(noise >> 48) as u16, (noise >> 32) as u16, (noise >> 16) as u16, noise as u16];
        let expected = guard.check(v4.into()).map_err(|refusal| refusal.class);
        let forms = [
            v6([0, 0, 0, 0, 0, 0xffff, high, low]),
            v6([0, 0, 0, 0, 0xffff, 0, high, low]),
            v6([0x64, 0xff9b, 0, 0, 0, 0, high, low]),
            v6([0x2002, high, low, n1, n2, n3, n4, n1]),
            v6([0x2001, 0, 0x808, 0x808, n1, n2, !high, !low]),
            v6([0x2001, 0, high, low, n1, n2, !0x808, !0x808]),
        ];
        for form in forms {
            prop_assert_eq!(guard.check(form).map_err(|refusal| refusal.class), expected, "{} as {}", v4, form);
        }
        if expected.is_err() {
            prop_assert!(guard.check(v6([0, 0, 0, 0, 0, 0, high, low])).is_err());
            prop_assert!(guard.check(v6([0x64, 0xff9b, 1, 0, 0, 0, high, low])).is_err());
        }
    }
}
