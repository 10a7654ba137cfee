package netnstest

import (
	"os/exec"
	"strings"
	"testing"
)

// hidden runs scripts/setup demo where Debian's firewall tools are hidden. Other users may read the project, wherever it is.
const hidden = `
mount --make-rprivate /
mount -t tmpfs tmpfs /usr/sbin
cd "$1" && programs=$2 && shift 2
ln -s /usr/bin/* "$programs"
$HIDE
exec "$@" scripts/setup demo`

// TestSetupNamesWhatIsMissing: where scripts/setup cannot install, it says so first, all at once, and builds nothing.
func TestSetupNamesWhatIsMissing(t *testing.T) {
	Require(t, "unshare", "setpriv", "mount", "bash")
	user := []string{
		"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
	}
	for _, c := range []struct {
		name, hide string
		as         []string
		want       []string
	}{
		{"no root", "", user, []string{
			"setup: make demo makes namespaces or mounts, which only root may",
			"setup: these Debian packages are missing, and only root can install them: iptables nftables",
		}},
		{"no apt", `rm "$programs/apt-get"; PATH=$programs:$(dirname "$(command -v go)")`, []string{"env"}, []string{
			"setup: these Debian packages are missing, and there is no apt-get to install them: iptables nftables",
		}},
		{"no Go", `rm -f "$programs/apt-get" "$programs/go"; PATH=$programs`, []string{"env"}, []string{
			"setup: Go is missing; go.mod names the version: https://go.dev/doc/install",
			"setup: these Debian packages are missing, and there is no apt-get to install them: iptables nftables",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			script := strings.Replace(hidden, "$HIDE", c.hide, 1)
			args := append([]string{"--mount", "bash", "-ec", script, "bash", root(t), t.TempDir()}, c.as...)
			out, err := exec.Command("unshare", args...).CombinedOutput()
			if want := strings.Join(c.want, "\n") + "\n"; err == nil || string(out) != want {
				t.Errorf("%v, says:\n%swant:\n%s", err, out, want)
			}
		})
	}
}
