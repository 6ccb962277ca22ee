guest_cases() { :; }
