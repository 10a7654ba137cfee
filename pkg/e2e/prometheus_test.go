package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"github.com/ip-masq/ip-masq-cni/pkg/agent"
	"github.com/ip-masq/ip-masq-cni/pkg/backend"
	"github.com/ip-masq/ip-masq-cni/pkg/install"
	"github.com/ip-masq/ip-masq-cni/pkg/netnstest"
	"github.com/ip-masq/ip-masq-cni/pkg/nfnl"
	"github.com/ip-masq/ip-masq-cni/pkg/paths"
	"github.com/ip-masq/ip-masq-cni/pkg/probes"
	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

// Where Prometheus listens on the test's node, and a page that looks as another node's agent.
const (
	prometheusAddress = "127.0.0.1:9090"
	otherAgent        = "127.0.0.1:10999"
)

// monitored is a node on which Prometheus scrapes an agent and a watching installer.
type monitored struct {
	*rig
	agent  *netnstest.Process
	client http.Client
}

func monitor(t *testing.T, r *rig) *monitored {
	t.Helper()
	netnstest.Require(t, "prometheus", "promtool")
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		return r.DialContext(ctx, network, address)
	}
	m := &monitored{rig: r, client: http.Client{Timeout: patience, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
	r.Write(t, "resyncInterval: 2s\n")
	overwrite(t, m.conflist(), conflist(network, ""))
	m.agent = r.startReady(t)
	r.Start(t, netnstest.Cmd{Args: []string{
		testkit.Program("ip-masq-installer"), "watch", "--source-dir", testkit.Built(), "--cni-conf-dir", r.ConfDir, "--cni-bin-dir", t.TempDir(),
		"--cni-cache-dir", r.CacheDir, "--state-dir", r.StateDir, "--data-dir", r.DataDir,
	}})
	dir := t.TempDir()
	overwrite(t, filepath.Join(dir, "prometheus.yml"), fmt.Sprintf(`
global: {scrape_interval: 1s}
scrape_configs:
- {job_name: agents, static_configs: [{targets: ["%s", "%s"]}]}
- {job_name: installers, static_configs: [{targets: ["%s"]}]}
`, paths.AgentAddress, otherAgent, paths.InstallerAddress))
	prometheus := r.Start(t, netnstest.Cmd{Args: []string{
		"prometheus", "--config.file=" + dir + "/prometheus.yml", "--storage.tsdb.path=" + dir + "/data", "--web.listen-address=" + prometheusAddress,
	}})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("agent:\n%s\nprometheus:\n%s", m.agent.Output(), prometheus.Output())
		}
	})
	return m
}

func (m *monitored) conflist() string { return filepath.Join(m.ConfDir, "10-pods.conflist") }

// page is what a program serves.
func (m *monitored) page(t *testing.T, address string) string {
	t.Helper()
	response, err := m.client.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%d %v", response.StatusCode, err)
	}
	return text.String()
}

// query returns the series that an expression has now. Prometheus may not have started yet.
func (m *monitored) query(t *testing.T, expr string) (series []string) {
	t.Helper()
	response, err := m.client.PostForm("http://"+prometheusAddress+"/api/v1/query", url.Values{"query": {expr}})
	if err != nil {
		return nil
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode == http.StatusServiceUnavailable {
		return nil
	}
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Value  []any
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer.Error != "" {
		t.Fatalf("%s: %v %s", expr, err, answer.Error)
	}
	for _, s := range answer.Data.Result {
		series = append(series, fmt.Sprint(s.Metric, s.Value[1]))
	}
	return series
}

// becomes waits until an expression has series.
func (m *monitored) becomes(t *testing.T, what, expr string) {
	t.Helper()
	m.eventually(t, m.agent, what+" has data: "+expr, func() bool { return len(m.query(t, expr)) > 0 })
}

// expressions reads conf/monitoring: the alerts by name, and the dashboard's queries, for all nodes.
func expressions(t *testing.T) (alerts map[string]string, dashboard []string) {
	t.Helper()
	root, err := netnstest.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, root+"/conf/monitoring/alerts.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	alerts = map[string]string{}
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			alerts[rule.Alert] = rule.Expr
		}
	}
	var board struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal([]byte(read(t, root+"/conf/monitoring/dashboard.json")), &board); err != nil {
		t.Fatal(err)
	}
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			dashboard = append(dashboard, strings.NewReplacer("$instance", ".*", "$__rate_interval", "15s").Replace(target.Expr))
		}
	}
	return alerts, dashboard
}

var metricName = regexp.MustCompile(`ip_masq_[a-z_]+`)

// TestPrometheus: on a healthy node every query of the dashboard has data, no alert's expression is true, and every metric that one
// names is there. Then damages make them true, one after the other.
func TestPrometheus(t *testing.T) {
	eachOf(t, testkit.Only(backend.NFTables), func(t *testing.T, r *rig) {
		m := monitor(t, r)
		p := r.attached(t, "pod")
		r.cache(t, p)
		r.wantSeen(t, p, nodeAddress)
		if _, err := p.Seen("tcp", r.Corp.IPv4); err != nil {
			t.Fatal(err)
		}
		alerts, dashboard := expressions(t)
		for _, expr := range dashboard {
			m.becomes(t, "a panel", expr)
		}
		for alert, expr := range alerts {
			for _, name := range metricName.FindAllString(expr, -1) {
				m.becomes(t, alert, name)
			}
			if series := m.query(t, expr); len(series) > 0 {
				t.Errorf("%s on a healthy node: %s has %v", alert, expr, series)
			}
		}
		m.lint(t, paths.AgentAddress, agent.MetricsPrefix, agent.Metrics())
		m.lint(t, paths.InstallerAddress, install.MetricsPrefix, install.Metrics())
		for name, want := range map[string]string{
			`ip_masq_agent_packets_total{family="ipv4",verdict="masquerade"} >= 1`:                                                               "ipv4",
			`ip_masq_agent_packets_total{family="ipv4",verdict="keep"} >= 1`:                                                                     "ipv4",
			`ip_masq_agent_prefix_packets_total{family="ipv4",prefix="10.0.0.0/8",verdict="keep"} >= 1`:                                          "10.0.0.0/8",
			`ip_masq_agent_backend_info{backend="nftables"}`:                                                                                     "nftables",
			`ip_masq_agent_attachments == 1`:                                                                                                     "1",
			`time() - ip_masq_agent_config_last_reload_success_timestamp_seconds < 600`:                                                          "",
			`time() - ip_masq_agent_last_sync_success_timestamp_seconds < 60`:                                                                    "",
			`ip_masq_agent_conntrack_clash_resolved_total == 0 and ip_masq_agent_conntrack_limit > 1000 and ip_masq_agent_conntrack_entries > 0`: "",
			`time() - ip_masq_installer_last_change_timestamp_seconds < 600`:                                                                     "",
			`ip_masq_agent_bytes_total{verdict="masquerade"} >= 28`:                                                                              "ipv4",
		} {
			if series := m.query(t, name); len(series) != 1 || !strings.Contains(series[0], want) {
				t.Errorf("%s: %v", name, series)
			}
		}
		m.damages(t, alerts)
	})
}

// lint holds a page to promtool's rules and to what the program describes.
func (m *monitored) lint(t *testing.T, address, prefix string, families []probes.Family) {
	t.Helper()
	page := m.page(t, address)
	if got := m.TryCmd(t, netnstest.Cmd{Args: []string{"promtool", "check", "metrics"}, Stdin: page}); got.Code != 0 || got.Stdout+got.Stderr != "" {
		t.Errorf("promtool check metrics: exit %d\n%s%s", got.Code, got.Stdout, got.Stderr)
	}
	for _, f := range families {
		if !strings.Contains(page, "# TYPE "+prefix+f.Name+" "+string(f.Type)+"\n") {
			t.Errorf("%s is described and not served on a healthy node:\n%s", f.Name, page)
		}
	}
}

// damages makes every alert's expression true. Waiting times and shares that no test can reach are smaller here.
func (m *monitored) damages(t *testing.T, alerts map[string]string) {
	t.Helper()
	scaled := map[string]*strings.Replacer{
		"IPMasqAgentSyncStale": strings.NewReplacer("> 900", "> 5"),
		"ConntrackNearlyFull":  strings.NewReplacer("> 0.8", "> 0"),
		"ConntrackFull":        strings.NewReplacer("> 0.95", "> 0"),
		"ConntrackInsertsFail": strings.NewReplacer("> 1", ">= 0"),
		// TestPortsUsedUp takes all of a small range.
		"SourcePortsNearlyUsedUp":  strings.NewReplacer("> 0.8", "> 0"),
		"SourcePortsUsedUp":        strings.NewReplacer("> 0.95", "> 0"),
		"TranslationLogLosesLines": strings.NewReplacer("> 0", ">= 0"),
	}
	tested := map[string]bool{}
	fires := func(names ...string) {
		t.Helper()
		for _, alert := range names {
			tested[alert] = true
			expr := alerts[alert]
			if s := scaled[alert]; s != nil {
				if s.Replace(expr) == expr {
					t.Errorf("%s has another limit: %s", alert, expr)
				}
				expr = s.Replace(expr)
			}
			m.becomes(t, alert, expr)
		}
	}
	silent := func(names ...string) {
		t.Helper()
		for _, alert := range names {
			m.eventually(t, m.agent, alert+" ends", func() bool { return len(m.query(t, alerts[alert])) == 0 })
		}
	}
	fires("ConntrackNearlyFull", "ConntrackFull", "ConntrackInsertsFail", "SourcePortsNearlyUsedUp", "SourcePortsUsedUp", "TranslationLogLosesLines")

	if err := os.Rename(m.conflist(), m.conflist()+".away"); err != nil {
		t.Fatal(err)
	}
	fires("IPMasqInstallerNotReady")
	if err := os.Rename(m.conflist()+".away", m.conflist()); err != nil {
		t.Fatal(err)
	}
	silent("IPMasqInstallerNotReady")

	former := m.page(t, paths.AgentAddress)
	m.Write(t, "resyncInterval: soon\n")
	fires("IPMasqAgentConfigInvalid")
	silent("IPMasqAgentNotReady")
	m.Write(t, "egress: [{destinations: [203.0.113.0/24], sourceAddresses: [100.64.0.0/10]}]\n")
	fires("IPMasqAgentEgressSourceMissing")
	m.sh(t, "iptables -w -t nat -I POSTROUTING -s 10.244.0.0/16 -j MASQUERADE")
	m.Write(t, "resyncInterval: 2s\nnonMasqueradeCIDRs: [10.0.0.0/8]\n")
	fires("IPMasqAgentConflict")
	silent("IPMasqAgentConfigInvalid")

	version := regexp.MustCompile(`build_info\{version="[^"]*"`)
	other := m.serve(t, version.ReplaceAllString(former, `build_info{version="0.0.1"`))
	fires("IPMasqAgentConfigsDiffer", "IPMasqAgentVersionsDiffer")

	m.holdLock(t, func() {
		m.cache(t, m.newPod(t, "passed-by"))
		fires("IPMasqAgentPodsUncovered", "IPMasqAgentNotReady", "IPMasqAgentSyncStale")
	})
	silent("IPMasqAgentPodsUncovered", "IPMasqAgentNotReady")

	owner := m.ownTable(t)
	fires("IPMasqAgentDrift")
	_ = owner.Close()
	silent("IPMasqAgentDrift")

	for range 14 { // a flush in the very instant of a sync counts for none
		m.sh(t, "nft flush chain inet ip-masq-agent IP-MASQ-AGENT")
		m.eventually(t, m.agent, "repaired", func() bool { return strings.Contains(m.standing(t), "masquerade") })
	}
	fires("IPMasqAgentRepairsOften")
	m.becomes(t, "repairs by object and cause", `ip_masq_agent_repairs_total{object="policy-rule",cause="missing"} >= 12`)

	m.eventually(t, m.agent, "a fight", func() bool {
		if strings.Contains(read(t, m.conflist()), "ip-masq") {
			overwrite(t, m.conflist(), conflist(network, ""))
		}
		return len(m.query(t, alerts["IPMasqInstallerFight"])) > 0
	})
	fires("IPMasqInstallerFight")

	m.agent.Stop(syscall.SIGTERM, patience)
	fires("IPMasqAgentDown")
	_ = other.Close()
	fires("IPMasqAgentAbsent")

	for _, alert := range slices.Sorted(maps.Keys(alerts)) {
		if !tested[alert] {
			t.Errorf("nothing makes %s true: %s", alert, alerts[alert])
		}
	}
}

// serve makes a page look as another node's agent, until the server is closed.
func (m *monitored) serve(t *testing.T, page string) *http.Server {
	t.Helper()
	var listener net.Listener
	err := m.Do(func() (err error) {
		listener, err = net.Listen("tcp", otherAgent)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(page)) })}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return server
}

// holdLock holds the node's lock, which every sync needs, as another process would.
func (m *monitored) holdLock(t *testing.T, during func()) {
	t.Helper()
	defer netnstest.HoldLock(t, filepath.Join(m.StateDir, "lock"))()
	during()
}

// ownTable puts a table that another process owns in the place of the agent's, which cannot change it then.
func (m *monitored) ownTable(t *testing.T) *nfnl.Conn {
	t.Helper()
	var owner *nfnl.Conn
	err := m.Do(func() (err error) {
		if owner, err = nfnl.Dial(); err != nil {
			return err
		}
		b := nfnl.NewBatch()
		b.DeleteTable("ip-masq-agent")
		b.AddTable("ip-masq-agent", 2, unix.NLM_F_EXCL) // NFT_TABLE_F_OWNER
		return owner.Commit(b)
	})
	if err != nil {
		t.Fatal(err)
	}
	return owner
}
