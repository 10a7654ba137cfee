package explain

import (
	"os"
	"testing"

	"github.com/ip-masq/ip-masq-cni/pkg/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }
