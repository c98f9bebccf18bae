"""Why a call goes where it goes."""
