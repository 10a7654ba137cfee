package manifests

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestLint(t *testing.T) {
	run(t, helm(t), "lint", "--strict", chart).must(t)
	for name, values := range accepted {
		t.Run(name, func(t *testing.T) {
			run(t, helm(t), append([]string{"lint", "--strict", chart}, values...)...).must(t)
		})
	}
}

// accepted are values that people have reason to set.
var accepted = map[string][]string{
	"own image": {"--set=image.repository=registry.example:5000/net/ip-masq-agent,image.tag=v9.9.9,image.pullPolicy=Always", "--set-json=imagePullSecrets=[{\"name\":\"pull\"}]"},
	"agent flags": {
		"--set=agent.backend=nftables,agent.enableIPv6=true,agent.masqChain=IP-MASQ,agent.nomasqAllReservedRanges=true,agent.randomFully=false,agent.verbosity=4",
		"--set-string=agent.toPorts=1024-29999\\,32768-65535", "--set-json=agent.extraArgs=[\"--strict-config=false\"]",
	},
	"installer flags": {
		"--set=installer.confFile=05-cilium.conflist,installer.allowIPMasq=true,installer.force=true",
		"--set-json=installer.entry={\"type\":\"ip-masq\",\"enableIPv6\":true}", "--set-json=installer.capabilities=[\"DAC_OVERRIDE\"]",
	},
	"own installer":  {"--set=installer.enabled=false"},
	"microk8s":       {"--set=cni.binDir=/var/snap/microk8s/current/opt/cni/bin,cni.confDir=/var/snap/microk8s/current/args/cni-network"},
	"all with ports": {"--set=agent.sources=all,metrics.enabled=true,metrics.port=9101,metrics.watchPort=9102"},
	"other port":     {"--set=metrics.port=9101"},
	"config":         {`--set-json=config={"nonMasqueradeCIDRs":["10.0.0.0/8","fd00::/8"],"masqueradeCIDRs":["10.66.0.0/16"],"resyncInterval":"30s","masqLinkLocal":true,"cidrLimit":64}`, "--set=agent.enableIPv6=true"},
	"config of scopes": {`--set-json=config={"egress":[{"destinations":["203.0.113.0/24","2001:db8::/32"],"sourceAddresses":["192.0.2.0/28","2001:db8:1::/64"],"whenMissing":"drop"}],` +
		`"outputInterfaces":["eth0","bond*","!wg0"],"nodeTraffic":true,"podAnnotations":["ip-masq-agent/source-addresses"],"toPorts":"auto","randomFully":false,"sources":"pods"}`, "--set=agent.enableIPv6=true"},
	"empty config":   {"--set-json=config={}"},
	"empty list":     {`--set-json=config={"nonMasqueradeCIDRs":[]}`},
	"uninstall hook": {"--set=uninstall.wait=false,cni.binDir=/bin/cni"},
	"scheduling":     {"--set=maxUnavailable=1,podAnnotations.example/a=b,nodeSelector.pool=edge,priorityClassName=high", "--set-json=tolerations=[]"},
}

// The schema refuses what would otherwise be noticed on the nodes, or never; the message has to name the value.
func TestRefusedValues(t *testing.T) {
	for value, names := range map[string]string{
		"agent.source=all":                                             "source",
		"agent.sources=some":                                           "/agent/sources",
		"agent.backend=ebpf":                                           "/agent/backend",
		"agent.enableIPv6=yes":                                         "/agent/enableIPv6",
		"agent.masqChain=IP-MASQ-AGENT-WITH-A-LONG-NAME":               "/agent/masqChain",
		"agent.toPorts=1024:2048":                                      "/agent/toPorts",
		"agent.extraArgs[0]=random-fully":                              "/agent/extraArgs/0",
		"agent.resources.limit.memory=1Gi":                             "limit",
		"agent.resources.limits.memory=lots":                           "/agent/resources/limits/memory",
		"images.tag=v1":                                                "images",
		"image.tag=v 1":                                                "/image/tag",
		"image.pullPolicy=Sometimes":                                   "/image/pullPolicy",
		"installer.force=please":                                       "/installer/force",
		"installer.confFile=../net.d/x":                                "/installer/confFile",
		"installer.confFile=cilium":                                    "/installer/confFile",
		"installer.entry.enableIPv6=true":                              "/installer/entry",
		"installer.entry.type=bridge":                                  "/installer/entry/type",
		"installer.capabilities[0]=SYS_ADMIN":                          "/installer/capabilities/0",
		"cni.binDir=opt/cni/bin":                                       "/cni/binDir",
		"cni.confDir=/net.d":                                           "/cni/confDir",
		"config.nonMasqueradeCIDR[0]=10.0.0.0/8":                       "nonMasqueradeCIDR",
		"config.nonMasqueradeCIDRs[0]=10.0.0.0":                        "/config/nonMasqueradeCIDRs/0",
		"config.nonMasqueradeCIDRs=10.0.0.0/8":                         "/config/nonMasqueradeCIDRs",
		"config.resyncInterval=60":                                     "/config/resyncInterval",
		"maxUnavailable=0":                                             "/maxUnavailable",
		"maxUnavailable=all":                                           "/maxUnavailable",
		"metrics.port=70000":                                           "/metrics/port",
		"requireNodeLabel=perhaps":                                     "/requireNodeLabel",
		"tolerations=all":                                              "/tolerations",
		"nodeSelector.beta\\.kubernetes\\.io/masq-agent-ds-ready=true": "/nodeSelector",
	} {
		t.Run(value, func(t *testing.T) {
			o := template(t, "--set", value)
			if o.err == nil {
				t.Fatalf("accepted:\n%s", o.stdout)
			}
			// JSON pointers or dotted paths: helm's wording differs between versions.
			if said := strings.ReplaceAll(o.stderr, ".", "/"); !strings.Contains(said, strings.TrimPrefix(names, "/")) {
				t.Errorf("does not name %s:\n%s", names, o.stderr)
			}
		})
	}
}

// A config that the chart writes is one that the agent takes.
func TestConfigOfChart(t *testing.T) {
	for _, name := range []string{"config", "config of scopes", "empty config", "empty list"} {
		t.Run(name, func(t *testing.T) {
			o := mustDecode(t, template(t, accepted[name]...).must(t))
			cm, ok := o["ConfigMap/kube-system/ip-masq-agent"].(*corev1.ConfigMap)
			if !ok {
				t.Fatalf("no ConfigMap in %v", o)
			}
			file := filepath.Join(t.TempDir(), "ip-masq-agent")
			if err := os.WriteFile(file, []byte(cm.Data["config"]), 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, tool(t, "ip-masq-agent"), "lint", "--enable-ipv6", file).must(t)
		})
	}
}

// The chart takes the keys of the configuration, all of them and no others.
func TestChartTakesEveryKey(t *testing.T) {
	var config struct {
		Properties map[string]any `json:"properties"`
	}
	var values struct {
		Properties map[string]struct {
			Properties map[string]any `json:"properties"`
		} `json:"properties"`
	}
	for path, into := range map[string]any{"conf/ip-masq-agent.schema.json": &config, chart + "/values.schema.json": &values} {
		if err := json.Unmarshal([]byte(read(t, path)), into); err != nil {
			t.Fatal(err)
		}
	}
	want, got := slices.Sorted(maps.Keys(config.Properties)), slices.Sorted(maps.Keys(values.Properties["config"].Properties))
	if !slices.Equal(want, got) {
		t.Errorf("the chart's value config takes %v; the file takes %v", got, want)
	}
}
