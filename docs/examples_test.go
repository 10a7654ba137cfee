package docs_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/config"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// TestReadmeConfiguration: the README's file has every key, and lint has nothing to say about it.
func TestReadmeConfiguration(t *testing.T) {
	text := read(t, "../README.md")
	_, text, _ = strings.Cut(text, "explains them all.\n\n")
	text, _, _ = strings.Cut(text, "\n\n")
	text = regexp.MustCompile(`(?m)^    `).ReplaceAllString(text, "")
	for _, key := range config.Keys() {
		if !strings.Contains("\n"+text, "\n"+key.Name+":") {
			t.Errorf("%s is not in the README", key.Name)
		}
	}
	_, findings, err := config.LintText("README", []byte(text), config.Options{Settings: policy.DefaultSettings()}, nil)
	if err != nil || len(findings) > 0 {
		t.Errorf("%v, %v in\n%s", err, findings, text)
	}
}

var (
	egressFile = regexp.MustCompile(`(?s)\$ cat my-config\n(nonMasqueradeCIDRs.*?)` + "```")
	egressRow  = regexp.MustCompile(`(?m)^\| (\d+\.\d+\.\d+\.\d+) \| (.*) \|$`)
)

// TestEgressTable: what docs/egress.md says of destinations is what the policy of its file decides.
func TestEgressTable(t *testing.T) {
	page := read(t, "egress.md")
	file, rows := egressFile.FindStringSubmatch(page), egressRow.FindAllStringSubmatch(page, -1)
	if file == nil || len(rows) < 5 {
		t.Fatalf("%d rows, file %q", len(rows), file)
	}
	c, findings, err := config.LintText("egress.md", []byte(file[1]), config.Options{Settings: policy.DefaultSettings()}, nil)
	if err != nil || len(findings) > 0 {
		t.Fatalf("%v, %v", err, findings)
	}
	words := map[policy.Verdict]string{policy.Keep: "the pod's own address", policy.Masquerade: "the interface's address"}
	for _, row := range rows {
		d, _ := c.Policy().Matcher(policy.IPv4).Match(netip.MustParseAddr(row[1]))
		want, found := words[d.Verdict]
		if !found {
			group := c.Egress[d.Group-1]
			want = fmt.Sprintf("an address of %s", group.SourceAddresses[0])
			if group.WhenMissing == policy.MissingDrop {
				want += ", or nothing"
			}
		}
		if !strings.HasPrefix(row[2], want) {
			t.Errorf("%s: %q, and the policy says %q", row[1], row[2], want)
		}
	}
}
