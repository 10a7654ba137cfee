package install

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The installer is copied to every node with the image, and started by whoever repairs one by hand.
func TestSizeAndDependencies(t *testing.T) {
	t.Parallel()
	info, err := os.Stat(installerBin())
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 8<<20 {
		t.Errorf("%d bytes", info.Size())
	}
	out, err := exec.Command("go", "list", "-deps", "../../cmd/ip-masq-installer").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		for prefix, reason := range map[string]string{
			"github.com/containernetworking/cni/":          "libcni decodes and encodes again, and brings OpenTelemetry",
			"github.com/ip-masq/ip-masq-cni/pkg/backend":   "the installer does not touch the kernel",
			"github.com/ip-masq/ip-masq-cni/pkg/netnstest": "for tests only",
			"go.opentelemetry.io/":                         "nothing here is traced",
		} {
			if strings.HasPrefix(dep, prefix) {
				t.Errorf("links %s: %s", dep, reason)
			}
		}
	}
}
