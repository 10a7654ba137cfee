package conflicts

// hooked is a chain that packets meet after routing, up to its rules.
const hooked = "{ type nat hook postrouting priority 100; "

const masqChecks = "CNI plugin bridge or ptp (ipMasq): nftables table inet cni_plugins_masquerade chain masq_checks"

var nativeTests = []struct {
	name, rules string
	want        []string
	spoiled     bool
}{
	{name: "plain", rules: "table ip x { chain y " + hooked + `oifname != "lo" masquerade; } }`, want: []string{"unknown: nftables table ip x chain y"}, spoiled: true},
	{name: "snat", rules: "table ip x { chain y " + hooked + "ip saddr 10.244.0.0/17 snat to 10.99.0.1; } }", want: []string{"unknown: nftables table ip x chain y"}, spoiled: true},
	{name: "both families", rules: "table inet x { chain y " + hooked + "masquerade; } }", want: []string{"unknown: nftables table inet x chain y"}, spoiled: true},
	{
		name: "a set", rules: "table ip x { set s { type ipv4_addr; flags interval; elements = { 10.244.0.0/16 } }\n chain y " + hooked + "ip saddr @s masquerade; } }",
		want: []string{"unknown: nftables table ip x chain y"}, spoiled: true,
	},
	{
		name: "the name that manuals use", rules: "table ip nat { chain postrouting " + hooked + "ip saddr 10.0.0.0/8 masquerade; } }",
		want: []string{"unknown: nftables table ip nat chain postrouting"}, spoiled: true,
	},
	{name: "not hooked", rules: "table ip x { chain y { masquerade; }\n chain z { type filter hook postrouting priority 100; accept; } }"},
	{name: "other sources", rules: "table inet x { chain y " + hooked + "ip saddr 10.88.0.0/16 masquerade; ip saddr != 10.244.0.0/16 masquerade; ip6 saddr fd00:88::/48 masquerade; } }"},
	{name: "other destinations", rules: "table inet x { chain y " + hooked + "ip daddr 198.51.100.0/25 masquerade; ip6 daddr 2001:db8:1::/48 masquerade; } }"},
	{name: "local", rules: "table ip x { chain y " + hooked + `fib daddr type local masquerade; fib saddr type local masquerade; oifname "lo" masquerade; } }`},
	{name: "marked", rules: "table ip x { chain y " + hooked + "meta mark & 0x2000 == 0x2000 masquerade; meta mark 7 masquerade; } }"},
	{name: "let out before", rules: "table ip x { chain y " + hooked + "ip daddr 10.0.0.0/8 accept; ip daddr 172.16.0.0/12 return; ip daddr { 1.2.3.4 } return; ip daddr 192.168.0.0/16 return; ip daddr 169.254.0.0/16 return; masquerade; } }"},
	{name: "ours", rules: "table inet ip-masq-agent { chain y " + hooked + "ip daddr 192.0.2.0/24 masquerade; ip saddr 10.244.0.5 ip daddr 169.254.0.0/16 masquerade; } }"},
	{name: "kube-proxy", rules: "table ip kube-proxy { chain masquerading { meta mark & 0x4000 == 0 return; meta mark set meta mark ^ 0x4000; masquerade fully-random; }\n" +
		"chain nat-postrouting " + hooked + "jump masquerading; } }"},
	{name: "bridge", rules: "table inet cni_plugins_masquerade { chain masq_checks { ip saddr == 10.244.0.2 ip daddr != 10.244.0.0/24 masquerade comment \"a\"; ip saddr == 10.244.0.9 ip daddr != 10.244.0.0/24 masquerade; }\n" +
		"chain postrouting " + hooked + "ip daddr == 224.0.0.0/4 return; ip6 daddr == ff00::/8 return; goto masq_checks; } }", want: []string{masqChecks}, spoiled: true},
	{name: "bridge of other software", rules: "table inet cni_plugins_masquerade { chain masq_checks { ip saddr == 10.88.0.2 ip daddr != 10.88.0.0/24 masquerade; }\n" +
		"chain postrouting " + hooked + "goto masq_checks; } }"},
	{name: "flannel", rules: flannelTable, want: []string{"flannel: nftables table ip flannel-ipv4 chain postrtg"}, spoiled: true},
	{
		name: "Calico", rules: "table ip calico { set cali40masq-ipam-pools { type ipv4_addr; flags interval; elements = { 10.244.0.0/16 } }\n set cali40all-ipam-pools { type ipv4_addr; flags interval; }\n" +
			"chain nat-cali-nat-outgoing { ip saddr @cali40masq-ipam-pools ip daddr != @cali40all-ipam-pools masquerade fully-random; }\n" +
			"chain nat-cali-POSTROUTING { jump nat-cali-nat-outgoing; }\n chain nat-POSTROUTING " + hooked + "jump nat-cali-POSTROUTING; } }",
		want: []string{"Calico: nftables table ip calico chain nat-cali-nat-outgoing"}, spoiled: true,
	},
	{
		name: "firewalld", rules: "table inet firewalld { chain nat_POST_public_allow { meta nfproto ipv4 oifname != \"lo\" masquerade; }\n chain nat_POST_public { jump nat_POST_public_allow; }\n" +
			"chain nat_POSTROUTING_POLICIES { goto nat_POST_public; }\n chain nat_POSTROUTING " + hooked + "jump nat_POSTROUTING_POLICIES; } }",
		want: []string{"firewalld: nftables table inet firewalld chain nat_POST_public_allow"}, spoiled: true,
	},
}

const flannelTable = `table ip flannel-ipv4 { comment "rules for flannel"
	chain postrtg { comment "chain to manage traffic masquerading"; type nat hook postrouting priority 100;
		meta mark & 0x4000 == 0x4000 return
		ip saddr 10.244.0.0/24 ip daddr 10.244.0.0/16 return
		ip saddr 10.244.0.0/16 ip daddr 10.244.0.0/24 return
		ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/24 return
		ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
		ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade fully-random
	}
}`
