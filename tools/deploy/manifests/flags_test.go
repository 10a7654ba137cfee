package manifests

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// The programs know every flag that they are given.
func TestFlags(t *testing.T) {
	known := map[string]string{
		agent:   helpOf(t, "ip-masq-agent", "run"),
		"watch": helpOf(t, "ip-masq-installer", "watch"),
	}
	flag := regexp.MustCompile(`^--[a-z0-9-]+`)
	variants(t, func(t *testing.T, o objects) {
		forEachContainer(o.daemonSet(t), func(c corev1.Container) {
			for _, arg := range append(c.Command, c.Args...) {
				name := flag.FindString(arg)
				if name != "" && !regexp.MustCompile(`(?m)(^|\s)-?`+name+`\b`).MatchString(known[c.Name]) {
					t.Errorf("%s does not know %s", c.Name, name)
				}
			}
		})
	})
}

// Each value of the chart that is a switch of a program becomes its flag, and without the value the flag is not there.
func TestValuesBecomeFlags(t *testing.T) {
	usual := mustDecode(t, template(t).must(t)).daemonSet(t)
	for _, c := range []struct{ value, container, flag string }{
		{"agent.backend=nftables", agent, "--backend=nftables"},
		{"agent.enableIPv6=true", agent, "--enable-ipv6"},
		{"agent.masqChain=IP-MASQ", agent, "--masq-chain=IP-MASQ"},
		{"agent.nomasqAllReservedRanges=true", agent, "--nomasq-all-reserved-ranges"},
		{"agent.randomFully=false", agent, "--random-fully=false"},
		{"agent.toPorts=1024-2047", agent, "--to-ports=1024-2047"},
		{"agent.verbosity=4", agent, "--v=4"},
		{"installer.confFile=05-cilium.conflist", "watch", "--conf-file=05-cilium.conflist"},
		{"installer.entry.type=ip-masq", "watch", `--entry={"type":"ip-masq"}`},
		{"installer.allowIPMasq=true", "watch", "--allow-ipmasq"},
		{"installer.force=true", "watch", "--force"},
	} {
		t.Run(c.value, func(t *testing.T) {
			ds := mustDecode(t, template(t, "--set", c.value).must(t)).daemonSet(t)
			arguments := func(ds *appsv1.DaemonSet) []string {
				return append(slices.Clone(container(ds, c.container).Command), container(ds, c.container).Args...)
			}
			if args := arguments(ds); !slices.Contains(args, c.flag) {
				t.Errorf("%s is not in %q", c.flag, args)
			}
			if args := arguments(usual); slices.Contains(args, c.flag) {
				t.Errorf("%s is in %q without the value", c.flag, args)
			}
		})
	}
}

func helpOf(t *testing.T, program, command string) string {
	t.Helper()
	o := run(t, tool(t, program), command, "--help")
	if help := o.stdout + o.stderr; strings.Contains(help, "--") || os.Getenv("CI") != "" {
		return help
	}
	t.Skipf("%s %s --help lists no flags: %v", program, command, o.err)
	return ""
}
