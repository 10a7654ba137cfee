package manifests

import (
	"os"
	"regexp"
	"strings"
	"testing"

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

func helpOf(t *testing.T, program, command string) string {
	t.Helper()
	o := run(t, tool(t, program), command, "--help")
	if help := o.stdout + o.stderr; strings.Contains(help, "--") || os.Getenv("CI") != "" {
		return help
	}
	t.Skipf("%s %s --help lists no flags: %v", program, command, o.err)
	return ""
}
