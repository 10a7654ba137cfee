package node

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
)

// TestLinkIn reads interfaces of another namespace from the node's: of each kind that the kernel lets us make.
func TestLinkIn(t *testing.T) {
	netnstest.Require(t, "ip")
	node, pod := netnstest.NewSpace(t, "node"), netnstest.NewSpace(t, "pod")
	node.Run(t, "sh", "-ec", strings.ReplaceAll(`
		ip link add card type veth peer name far
		ip link add macvlan0 link card netns POD type macvlan mode bridge
		ip link add veth0 netns POD type veth peer name host0
		ip link add bridge0 netns POD type bridge`, "POD", pod.Name))
	ask := func(netns, name string) (link, error) {
		r := askRoutes()
		defer r.close()
		return r.linkIn(netns, name)
	}
	for name, want := range map[string]string{"macvlan0": "macvlan", "veth0": "", "bridge0": "", "lo": ""} {
		var got link
		err := node.Do(func() (err error) { got, err = ask(pod.Path, name); return err })
		if err != nil || got.direct() != want || got.kind == "" && name != "lo" {
			t.Errorf("%s: %+v, %v: %q, want %q", name, got, err, got.direct(), want)
		}
	}
	for name, call := range map[string]func() error{
		"no interface": func() error { _, err := ask(pod.Path, "eth9"); return err },
		"no namespace": func() error { _, err := ask("/no/such", "lo"); return err },
		"not one":      func() error { _, err := ask("/etc/hostname", "lo"); return err },
	} {
		if err := node.Do(call); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestParseLink: what cannot be made on every machine.
func TestParseLink(t *testing.T) {
	message := func(hardware uint16, kind string, mode int) []byte {
		body := make([]byte, unix.SizeofIfInfomsg)
		binary.NativeEndian.PutUint16(body[2:], hardware)
		body = appendAttr(body, unix.IFLA_IFNAME, []byte("eth0\x00"))
		var info []byte
		if kind != "" {
			info = appendAttr(nil, unix.IFLA_INFO_KIND, []byte(kind+"\x00"))
		}
		if mode >= 0 {
			data := appendAttr(nil, unix.IFLA_IPVLAN_MODE, binary.NativeEndian.AppendUint16(nil, uint16(mode)))
			info = appendAttr(info, unix.IFLA_INFO_DATA|unix.NLA_F_NESTED, data)
		}
		return appendAttr(body, unix.IFLA_LINKINFO|unix.NLA_F_NESTED, info)
	}
	for name, test := range map[string]struct {
		body []byte
		want string
	}{
		"ipvlan l2":             {message(unix.ARPHRD_ETHER, "ipvlan", 0), "ipvlan"},
		"ipvlan l3":             {message(unix.ARPHRD_ETHER, "ipvlan", 1), ""},
		"ipvlan l3s":            {message(unix.ARPHRD_ETHER, "ipvlan", 2), ""},
		"a card, or a part":     {message(unix.ARPHRD_ETHER, "", -1), "hardware"},
		"of InfiniBand":         {message(unix.ARPHRD_INFINIBAND, "", -1), "hardware"},
		"vlan":                  {message(unix.ARPHRD_ETHER, "vlan", -1), "vlan"},
		"macvtap":               {message(unix.ARPHRD_ETHER, "macvtap", -1), "macvtap"},
		"another kind's number": {message(unix.ARPHRD_ETHER, "veth", 0), ""},
		"netkit":                {message(unix.ARPHRD_ETHER, "netkit", -1), ""},
		"openvswitch":           {message(unix.ARPHRD_ETHER, "openvswitch", -1), ""},
		"loopback":              {message(unix.ARPHRD_LOOPBACK, "", -1), ""},
		"nothing":               {nil, ""},
	} {
		if got := parseLink(test.body).direct(); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
		for i := range test.body {
			parseLink(test.body[:i]) // a part of an answer is no reason to panic
		}
	}
}

// TestBypassingIsNotAdopted: the runtime names a pod with a macvlan interface, beside a usual one. It is listed, and gets no rule;
// with its namespace it is forgotten.
func TestBypassingIsNotAdopted(t *testing.T) {
	pods, usual := netnstest.NewSpace(t, "pod"), netnstest.NewSpace(t, "pod")
	cached := func(container, address string, in *netnstest.Space) attachment.Attachment {
		return attachment.Attachment{
			Owner: attachment.Owner{Network: "pods", ContainerID: container, IfName: "eth0"}, NetNS: attachment.StatNetNS(in.Path),
			Addresses: []netip.Addr{netip.MustParseAddr(address)},
		}
	}
	direct, other := cached("direct", "192.0.2.50", pods), cached("usual", "10.1.0.2", usual)
	k := newKernel(t, "nft", Options{Runtime: listed{direct, other}})
	k.Run(t, "sh", "-ec", "ip link add card type veth peer name far; ip link add eth0 link card netns "+pods.Name+" type macvlan; ip link add host0 type veth peer name eth0 netns "+usual.Name)
	for range 2 {
		k.mustSync(t)
		all, err := k.Bypassing()
		if err != nil || len(all) != 1 || all[0].Owner != direct.Owner || all[0].Bypass != "macvlan" {
			t.Errorf("bypassing: %+v, %v", all, err)
		}
		if out, err := k.OptedOut(); len(out) > 0 || err != nil {
			t.Errorf("opted out: %+v, %v", out, err)
		}
		if rules := k.rules(t, "nft"); strings.Contains(rules, "192.0.2.50") || !strings.Contains(rules, "10.1.0.2") {
			t.Error(rules)
		}
		k.forget()
	}
	if n := strings.Count(k.logged.String(), "never meet the node's rules"); n != 1 {
		t.Errorf("said %d times:\n%s", n, k.logged.String())
	}
	pods.Remove()
	k.mustSync(t)
	if all, _ := k.optOuts.List(); len(all) > 0 {
		t.Errorf("left: %+v", all)
	}
}

// listed is a runtime that knows these.
type listed []attachment.Attachment

func (l listed) Place() string { return "" }
func (l listed) Stamp() string { return "" }
func (l listed) Attachments() (masqueraded []attachment.Attachment, all map[attachment.ID]bool, err error) {
	all = map[attachment.ID]bool{}
	for _, a := range l {
		all[a.ID()] = true
	}
	return l, all, nil
}
