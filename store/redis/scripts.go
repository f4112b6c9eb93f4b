package redis

import (
	_ "embed" // the scripts

	goredis "github.com/redis/go-redis/v9"
)

// Each script works on the keys of one slot, all of which it is given; putScript on those of two, where there are no slots.
var (
	//go:embed lua/account.lua
	accountLua string // the beginning of those that make room
	//go:embed lua/reserve.lua
	reserveLua string
	//go:embed lua/forget.lua
	forgetLua string
	//go:embed lua/usage.lua
	usageLua string
	//go:embed lua/commit.lua
	commitLua string
	//go:embed lua/put.lua
	putLua string
	//go:embed lua/abandon.lua
	abandonLua string
	//go:embed lua/remove.lua
	removeLua string
	//go:embed lua/adopt.lua
	adoptLua string
	//go:embed lua/mark.lua
	markLua string
	//go:embed lua/release.lua
	releaseLua string
	//go:embed lua/trial.lua
	trialLua string
	//go:embed lua/spend.lua
	spendLua string

	reserveScript = goredis.NewScript(accountLua + reserveLua)
	forgetScript  = goredis.NewScript(forgetLua)
	usageScript   = goredis.NewScript(usageLua)
	commitScript  = goredis.NewScript(commitLua)
	putScript     = goredis.NewScript(accountLua + putLua)
	abandonScript = goredis.NewScript(abandonLua)
	removeScript  = goredis.NewScript(removeLua)
	adoptScript   = goredis.NewScript(adoptLua)
	markScript    = goredis.NewScript(markLua)
	releaseScript = goredis.NewScript(releaseLua)
	trialScript   = goredis.NewScript(trialLua)
	spendScript   = goredis.NewScript(spendLua)
)
