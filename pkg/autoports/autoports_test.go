package autoports

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

func ports(t *testing.T, text string) policy.PortRanges {
	t.Helper()
	ranges, err := policy.ParsePortRanges(text)
	if err != nil {
		t.Fatal(err)
	}
	return ranges
}

func TestFree(t *testing.T) {
	for _, c := range []struct{ name, nodePorts, local, reserved, want string }{
		{"the defaults of Kubernetes and Linux", "30000-32767", "32768-60999", "", "1024-29999,61000-65535"},
		{"a wider local range", "30000-32767", "10000-65535", "", "1024-9999"},
		{"a local range around the node ports", "30000-32767", "15000-64000", "", "1024-14999,64001-65535"},
		{"reserved ports in between, in any order", "30000-32767", "32768-60999", "9100,8000-8099,61000", "1024-7999,8100-9099,9101-29999,61001-65535"},
		{"reserved ports that overlap", "30000-32767", "32768-60999", "2000-40000,3000-3999", "1024-1999,61000-65535"},
		{"the first and the last port", "30000-32767", "32768-60999", "1024,65535", "1025-29999,61000-65534"},
		{"ranges below 1024", "80-443", "32768-60999", "22", "1024-32767,61000-65535"},
		{"one port is left", "1024-40000", "40002-65535", "", "40001"},
		{"up to the end", "1024-65534", "2000-3000", "", "65535"},
		{"a local range of all ports", "30000-32767", "1024-65535", "", "no port is left (node ports 30000-32767, local ports 1024-65535)"},
		{"all three together", "1024-20000", "20001-60000", "60001-65535", "no port is left (node ports 1024-20000, local ports 20001-60000, reserved ports 60001-65535): narrow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			taken := Taken{NodePorts: ports(t, c.nodePorts)[0], Local: ports(t, c.local)[0], Reserved: ports(t, c.reserved)}
			free, err := taken.Free()
			got := free.String()
			if err != nil {
				got = err.Error()
			}
			if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestRead reads what the kernel writes, tabs included, and names what cannot be read.
func TestRead(t *testing.T) {
	for _, c := range []struct{ name, local, reserved, want string }{
		{"as by default", "32768\t60999\n", "\n", "node ports 30000-32767, local ports 32768-60999"},
		{"with reserved ports", "1024\t20000\n", "8080,9148-9150\n", "node ports 30000-32767, local ports 1024-20000, reserved ports 8080,9148-9150"},
		{"without a file", "", "\n", "net.ipv4.ip_local_port_range: open"},
		{"other text", "32768 60999\n", "all\n", `net.ipv4.ip_local_reserved_ports: port range "all"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string]string{"ip_local_port_range": c.local, "ip_local_reserved_ports": c.reserved} {
				if text == "" {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			taken, err := Read(dir, ports(t, DefaultNodePorts)[0])
			got := taken.String()
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// TestReadOfThisKernel: the format is this kernel's.
func TestReadOfThisKernel(t *testing.T) {
	taken, err := Read(Sysctls, ports(t, DefaultNodePorts)[0])
	if err != nil || taken.Local.Size() < 2 {
		t.Errorf("%+v, %v", taken, err)
	}
}
