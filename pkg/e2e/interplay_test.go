package e2e

import "testing"

// neighbours are rules that others have on a node and that leave our verdicts alone: kube-proxy's masquerading of what it marked,
// in both of its modes, the portmap plugin's, and iptables-legacy's table beside whatever is ours.
var neighbours = []struct{ name, script string }{
	{"kube-proxy, iptables", `
iptables -w -t nat -N KUBE-POSTROUTING
iptables -w -t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
iptables -w -t nat -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
iptables -w -t nat -A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
iptables -w -t nat -I POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING`},
	{"kube-proxy, nftables", `
nft add table ip kube-proxy
nft add chain ip kube-proxy masquerading
nft add rule ip kube-proxy masquerading meta mark and 0x4000 == 0 return
nft add rule ip kube-proxy masquerading masquerade fully-random
nft add chain ip kube-proxy nat-postrouting '{ type nat hook postrouting priority srcnat; }'
nft add rule ip kube-proxy nat-postrouting jump masquerading`},
	{"portmap", `
iptables -w -t nat -N CNI-HOSTPORT-MASQ
iptables -w -t nat -A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
iptables -w -t nat -A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ`},
	{"iptables-legacy beside", `
iptables-legacy -w -t nat -N OTHERS
iptables-legacy -w -t nat -A POSTROUTING -s 198.51.100.0/24 -j OTHERS
iptables-legacy -w -t nat -A OTHERS -j MASQUERADE`},
}

// TestNeighbours: the verdicts are the same whoever else has rules, whether they came before ours or after.
func TestNeighbours(t *testing.T) {
	for _, order := range []string{"before ours", "after ours"} {
		t.Run(order, func(t *testing.T) {
			each(t, func(t *testing.T, r *rig) {
				if order == "before ours" {
					r.addNeighbours(t)
				}
				r.Sync(t)
				p := r.attached(t, "a")
				if order == "after ours" {
					r.addNeighbours(t)
				}
				r.wantSeen(t, p, nodeAddress)
				if got := seenAs(p.Pod, r.Corp.IPv4); got != p.Addrs[0].String() {
					t.Errorf("inside it is seen as %s, want its own address %s", got, p.Addrs[0])
				}
			})
		})
	}
}

func (r *rig) addNeighbours(t *testing.T) {
	t.Helper()
	for _, n := range neighbours {
		r.sh(t, n.script)
	}
}

// TestAlreadyTranslated: a packet that kube-proxy marked is masqueraded by kube-proxy's rule, to the same address, once.
func TestAlreadyTranslated(t *testing.T) {
	each(t, func(t *testing.T, r *rig) {
		r.addNeighbours(t)
		r.sh(t, `iptables -w -t mangle -A PREROUTING -d 10.99.0.0/16 -j MARK --or-mark 0x4000`)
		r.Sync(t)
		p := r.attached(t, "a")
		r.wantSeen(t, p, nodeAddress)
		if got := seenAs(p.Pod, r.Corp.IPv4); got != "10.99.0.1" {
			t.Errorf("a packet that is marked for masquerading is seen as %s, want the node's 10.99.0.1", got)
		}
	})
}
